internal import BlockIO
internal import HostSystem
internal import ImageDriver

// A live snapshot of one or several disks at one moment: over each of them a new, empty overlay becomes
// the active image, and what was active until now becomes the topmost backing layer and never
// changes again.
//
//     1  each overlay is made (or opened, mode=existing), durable with its name, and locked
//     2  each disk is flushed                           long, guests go on
//     -- gates of all disks, exclusive, by name -------------------------------------------
//     3  each overlay is checked: same size, nothing in it, and its backing name leads to the active image
//     4  each disk is flushed again, and gives unused clusters back; the chain to come is built
//     5  each old image gives back the locks of a writer, and refuses writes; the chain to come is in
//        force; the next write goes to the overlay
//     -- end of all gates -----------------------------------------------------------------
//
// One moment: between the last gate that closes and the first that opens no guest's request of any of
// the disks is served. A write that waits at one gate was not acknowledged, so nothing that a guest
// makes depend on it was written to another disk either.
//
// All or nothing: any failure up to 4 takes the files that were made here away again and leaves all
// disks as they were; an image that was closed in 4 goes on as before it. 5 cannot fail: locks are only
// given back, and the rest is in memory.
//
// A crash before 5 leaves overlays that nobody uses beside untouched chains. One during or after it
// finds every old image durable and whole, and every overlay durable under its name and on top of it, so
// each disk can be mounted by either.

/// Snapshots of disks that are taken together.
package struct GroupSnapshot {
  /// What went wrong, and with which disk; nothing was changed then.
  package struct Failure: Error {
    /// The device's name.
    package let disk: String
    /// What went wrong.
    package let cause: ChainError
  }

  private let targets: [(disk: Disk, path: String, mode: SnapshotMode)]
  private let format: String

  /// A snapshot of disks of different names, each at a path of its own, which has to be absolute.
  package init(
    _ targets: [(disk: Disk, path: String)], format: String = "qcow2",
    mode: SnapshotMode = .absolutePaths
  ) {
    self.init(each: targets.map { ($0.disk, $0.path, mode) }, format: format)
  }

  /// The same, where each overlay may come from elsewhere.
  package init(
    each targets: [(disk: Disk, path: String, mode: SnapshotMode)], format: String = "qcow2"
  ) {
    precondition(Set(targets.map(\.disk.name)).count == targets.count, "a disk comes twice")
    // Lock: the gates are taken in this order, so that two groups cannot wait for each other.
    self.targets = targets.sorted { $0.disk.name < $1.disk.name }
    self.format = format
  }

  /// Takes the snapshot of all, or of none. No bytes of any disk change.
  package func take() throws(Failure) {
    var seen: [String: Disk] = [:]
    for target in targets {
      try on(target.disk) { () throws(ChainError) in
        try target.disk.checkSnapshot(path: target.path, format: format)
        if let other = seen.updateValue(target.disk, forKey: target.path) {
          throw .oneFileForTwo(path: target.path, other.name)
        }
      }
    }
    var overlays: [SnapshotOverlay] = []
    do throws(Failure) {
      for target in targets {
        overlays.append(
          try on(target.disk) { () throws(ChainError) in
            try SnapshotOverlay(target.mode, of: target.disk, at: target.path, beside: overlays)
          })
      }
      for target in targets {
        try on(target.disk) { () throws(ChainError) in try target.disk.flush() }
      }
      try change(to: overlays)
    } catch {
      for overlay in overlays.reversed() { overlay.abandon() }
      throw error
    }
  }

  /// Steps 3 to 5.
  private func change(to overlays: [SnapshotOverlay]) throws(Failure) {
    let gates = overlays.map(\.disk.gate)
    try SharedGate.exclusive(gates[...]) { () throws(Failure) in
      var chains: [(overlay: SnapshotOverlay, layers: DiskLayers)] = []
      for overlay in overlays {
        let layers = try on(overlay.disk) { () throws(ChainError) in
          try overlay.disk.layersAlone()
        }
        chains.append((overlay, layers))
      }
      for (overlay, layers) in chains {
        try on(overlay.disk) { () throws(ChainError) in
          for other in chains { try overlay.check(isNoPartOf: other.layers, other.overlay.disk) }
          try overlay.check(over: layers)
        }
      }
      var changes: [(disk: Disk, old: DiskLayers, new: DiskLayers)] = []
      for (overlay, layers) in chains {
        let new = try on(overlay.disk) { () throws(ChainError) in
          try overlay.closedChain(over: layers)
        }
        changes.append((overlay.disk, layers, new))
      }
      // Order: what was written is durable in every old image, and every overlay with its name, before
      // the first old image refuses writes. From here on nothing can fail.
      for change in changes {
        change.old.active.image.becomeBacking()
        change.disk.replaceLayers(with: change.new)
      }
    }
  }

  private func on<Result>(
    _ disk: Disk, _ body: () throws(ChainError) -> Result
  ) throws(Failure) -> Result {
    do { return try body() } catch { throw Failure(disk: disk.name, cause: error) }
  }
}
