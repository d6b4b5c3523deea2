package import BlockIO
internal import HostSystem
internal import Qcow2Format

/// Makes new images.
package enum ImageBuilder {
  /// How clusters are compressed, in QEMU's words.
  package enum Compression: String, Sendable, CaseIterable {
    case zlib, zstd
  }

  /// What becomes of the disk's space when an image is made, in QEMU's words.
  package enum Preallocation: String, Sendable, CaseIterable {
    /// Clusters are allocated as they are written.
    case off
    /// Each cluster has its place in the file, which is a hole.
    case metadata
    /// The places are reserved on the host.
    case falloc
    /// The places are written with zeroes.
    case full
  }

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
    /// A writer may let refcounts lag.
    package var hasLazyRefcounts = false
    /// L2 entries tell of subclusters; the cluster size is 16 KiB or more.
    package var hasExtendedL2 = false
    /// How clusters are compressed, should any be.
    package var compression = Compression.zlib
    /// What the disk has room for from the start.
    package var preallocation = Preallocation.off

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
    if options.preallocation != .off, options.backing != nil, !options.hasExtendedL2 {
      // A preallocated cluster hides what is below it, a preallocated subcluster does not.
      throw .unsupported(path: path, feature: "preallocation over a backing file")
    }
    var wanted = ImageOptions(virtualSize: options.virtualSize)
    wanted.version = options.version
    wanted.clusterBits = options.clusterSize.trailingZeroBitCount
    wanted.refcountOrder = options.refcountBits.trailingZeroBitCount
    wanted.backingFile = options.backing?.name
    wanted.backingFormat = options.backing?.format
    wanted.hasLazyRefcounts = options.hasLazyRefcounts
    wanted.hasExtendedL2 = options.hasExtendedL2
    wanted.compression = options.compression == .zstd ? .zstd : .deflate
    wanted.isPreallocated = options.preallocation != .off
    let template: ImageTemplate
    do { template = try ImageTemplate.newImage(wanted) } catch {
      throw .format(path: path, error)
    }
    try onStorage { () throws(StorageError) in try storage.truncate(to: template.fileLength) }
    try fill(template.data, options.preallocation, on: storage)
    let clusterSize = UInt64(options.clusterSize)
    let step = max(1, (1 << 20) / clusterSize)
    var first = template.tableClusters.lowerBound
    while first < template.tableClusters.upperBound {
      let end = min(first + step, template.tableClusters.upperBound)
      try storage.writeTable(template.tables(first..<end), at: first * clusterSize)
      first = end
    }
    // Order: the header last, so that an image cut off in the making is none.
    try onStorage { () throws(StorageError) in try storage.flush() }
    try storage.writeTable(template.firstCluster, at: 0)
    try onStorage { () throws(StorageError) in try storage.flush() }
  }

  /// Gives the guest's clusters their room on the host.
  private static func fill(
    _ data: Range<UInt64>, _ preallocation: Preallocation, on storage: any BlockStorage
  ) throws(ImageError) {
    let start = HostOffset(data.lowerBound)
    switch preallocation {
    case .off, .metadata: break
    case .falloc:
      try onStorage { () throws(StorageError) in
        try storage.allocate(at: start, length: UInt64(data.count))
      }
    case .full:
      let zeroes = [UInt8](repeating: 0, count: 1 << 20)
      var place = data.lowerBound
      while place < data.upperBound {
        let count = Int(min(UInt64(zeroes.count), data.upperBound - place))
        try onStorage { () throws(StorageError) in
          try storage.write(zeroes.rawSpan.extracting(0..<count), at: HostOffset(place))
        }
        place += UInt64(count)
      }
    }
  }

  /// Makes an overlay of an image with QEMU's defaults.
  package static func create(
    on storage: any BlockStorage, virtualSize: UInt64, backing: BackingReference
  ) throws(ImageError) {
    try create(on: storage, Options(virtualSize: virtualSize, backing: backing))
  }
}
