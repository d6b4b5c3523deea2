internal import BlockIO
internal import HostSystem
internal import ImageDriver

// A larger disk over a backing file that is larger than the old disk would show the backing file's
// tail, where the guest has to find zeroes; and an image that was made smaller once may still hold
// bytes behind its end, in its last cluster at least. So the new part is made to read zero, at once
// after the header; a crash in between shows what was there in a part that nobody was told of yet.

extension Disk {
  /// Makes the disk larger; the new part reads zero.
  ///
  /// Refused for a disk that is not configured to grow, and for a smaller size. The same size is no
  /// change. A qcow2 image takes whole sectors of 512 bytes.
  package func grow(to wanted: UInt64) throws(ChainError) {
    if isReadOnly { throw .readOnly(disk: name) }
    func refusal(_ kind: FailureKind, _ reason: String) -> ChainError {
      .growRefused(disk: name, kind: kind, reason: reason)
    }
    guard configuration.isGrowable else {
      throw refusal(.notPermitted, "it is not mounted growable")
    }
    guard wanted.isMultiple(of: 512) else {
      throw refusal(.invalid, "\(wanted) bytes are not whole sectors of 512")
    }
    guard wanted <= UInt64(Int64.max) - 511 else { throw refusal(.tooLarge, "no file is so large") }
    var failure: ChainError?
    try changeLayers { layers throws(ChainError) in
      let old = try writable(layers)
      let oldSize = old.virtualSize
      if wanted == oldSize { return layers }
      guard wanted > oldSize else { throw refusal(.notPermitted, "it never shrinks") }
      let image: any WritableImage
      if let qcow2 = old as? Qcow2Image {
        image = try onImage { () throws(ImageError) in try qcow2.grown(to: wanted) }
      } else {
        let storage = old.storage
        try onStorage { () throws(StorageError) in try storage.truncate(to: wanted) }
        image = try onImage { () throws(ImageError) in try RawImage(storage: storage) }
      }
      let grown = DiskLayers(
        active: Layer(
          id: layers.active.id, image: image, path: layers.active.path, namedAs: nil,
          use: layers.active.use),
        writable: image, backing: layers.backing)
      layers.active.use.replace(image)
      do throws(ChainError) {
        // A bitmap's new part is clean, as in QEMU: the guest has written nothing there.
        try image.withoutRecording { () throws(ChainError) in
          try hideOld(from: oldSize, to: wanted, grown)
        }
        try onImage { () throws(ImageError) in try image.flush() }
      } catch {
        // The old image object knows nothing of the new size: the new one takes over all the same.
        failure = error
      }
      return grown
    }
    if let failure { throw failure }
  }

  /// Makes zero what would show in a part that is new.
  private func hideOld(
    from start: UInt64, to end: UInt64, _ layers: DiskLayers
  ) throws(ChainError) {
    var position = GuestOffset(start)
    while position.rawValue < end {
      let extent = try topmost(at: position, upTo: end - position.rawValue, layers)
      if extent.isData {
        let range = GuestRange(offset: position, length: extent.length)
        try writeZeroes(range, mode: .unmap, layers)
      }
      position += extent.length
    }
  }
}
