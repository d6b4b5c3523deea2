package import BlockIO
internal import HostSystem
internal import Qcow2Format

/// Makes new images.
package enum ImageBuilder {
  /// What a new image is like.
  package struct Options: Sendable {
    /// The size of the disk in bytes, rounded up to 512.
    package var virtualSize: UInt64
    /// 512 bytes to 2 MiB, a power of two.
    package var clusterSize = 64 << 10
    /// 1 to 64, a power of two; 16 in version 2.
    package var refcountBits = 16
    /// 2 or 3.
    package var version = 3
    /// What the image is an overlay of.
    package var backing: BackingReference?

    /// A version 3 image with QEMU's defaults.
    package init(virtualSize: UInt64, backing: BackingReference? = nil) {
      self.virtualSize = virtualSize
      self.backing = backing
    }
  }

  /// Writes a new, empty image to an empty file, durably.
  package static func create(
    on storage: any BlockStorage, _ options: Options
  ) throws(ImageError) {
    let path = storage.path
    guard options.clusterSize.nonzeroBitCount == 1, options.refcountBits.nonzeroBitCount == 1 else {
      throw .unsupported(path: path, feature: "a cluster size or refcount width off powers of two")
    }
    let template: ImageTemplate
    do {
      template = try ImageTemplate.newImage(
        version: options.version, clusterBits: options.clusterSize.trailingZeroBitCount,
        refcountOrder: options.refcountBits.trailingZeroBitCount,
        virtualSize: options.virtualSize, backingFile: options.backing?.name,
        backingFormat: options.backing?.format, lazyRefcounts: false)
    } catch { throw .format(path: path, error) }
    try onStorage { () throws(StorageError) in try storage.truncate(to: template.fileLength) }
    // Order: the header last, so that an image cut off in the making is none.
    for piece in template.pieces.reversed() {
      if piece.offset == 0 {
        try onStorage { () throws(StorageError) in try storage.flush() }
      }
      try storage.writeTable(piece.bytes, at: piece.offset)
    }
    try onStorage { () throws(StorageError) in try storage.flush() }
  }

  /// Makes an overlay of an image with QEMU's defaults.
  package static func create(
    on storage: any BlockStorage, virtualSize: UInt64, backing: BackingReference
  ) throws(ImageError) {
    try create(on: storage, Options(virtualSize: virtualSize, backing: backing))
  }
}
