internal import HostSystem
internal import ImageDriver

/// Where the overlay of a snapshot comes from.
package enum SnapshotMode: Sendable {
  /// It is made, and names the image below it by its absolute path.
  case absolutePaths
  /// It is there already: empty, of the same size, and on top of the active image.
  case existing
}

extension Disk {
  /// Puts a new active image on top of the chain.
  ///
  /// The path has to be absolute. Nothing of the disk's bytes changes. When it throws, the disk is as
  /// before and no file was left behind.
  package func snapshot(
    path: String, format: String = "qcow2", mode: SnapshotMode = .absolutePaths
  ) throws(ChainError) {
    let group = GroupSnapshot([(disk: self, path: path)], format: format, mode: mode)
    do { try group.take() } catch { throw error.cause }
  }

  /// Throws if a snapshot at this path cannot be, whatever the host says.
  func checkSnapshot(path: String, format: String) throws(ChainError) {
    if isReadOnly { throw .readOnly(disk: name) }
    func refusal(_ kind: FailureKind, _ reason: String) -> ChainError {
      .snapshotRefused(path: path, kind: kind, reason: reason)
    }
    guard format == "qcow2" else {
      throw refusal(.unsupported, "format \(format) cannot hold a snapshot, only qcow2 can")
    }
    guard PlacePath.isAbsolute(path) else {
      throw refusal(.invalid, "the path has to be absolute")
    }
    guard virtualSize.isMultiple(of: 512) else {
      throw refusal(.unsupported, "the size of the disk is not a multiple of 512")
    }
    // A chain that could not be mounted again must not come about.
    let opener = ChainOpener(configuration: configuration, files: files)
    try withLayers { layers throws(ChainError) in
      guard layers.all.count < ChainOpener.layerLimit else {
        throw refusal(
          .unsupported,
          "the chain has \(ChainOpener.layerLimit) layers, and no more are mounted; stream it first"
        )
      }
      do throws(ChainError) { try opener.checkInRoot(layers.active.image.storage) } catch {
        throw refusal(error.kind, "no image could be on top of it, for \(error.description)")
      }
    }
  }
}
