// The bytes of a new image that reads zero, or shows all of its backing file.
//
//     cluster 0   1 ...            ...               ...        ...         ...
//     header    | refcount table | refcount blocks | L1 table | L2 tables | data
//
// Every cluster has a refcount of one. Without preallocation there are no L2 tables and no data. With
// it each guest cluster has a home, and the data are holes of the file: they read zero. The tables of a
// large preallocated image are large too, so they are made run by run and never held as a whole.

/// What a new image is like.
package struct ImageOptions: Sendable {
  /// 2 or 3.
  package var version = 3
  /// The base-2 logarithm of the cluster size.
  package var clusterBits = 16
  /// The base-2 logarithm of a refcount's width in bits.
  package var refcountOrder = 4
  /// The size of the disk, rounded up to 512 as QEMU does when it creates one.
  package var virtualSize: UInt64
  /// What the header names as backing file.
  package var backingFile: String?
  /// What the header names as its format.
  package var backingFormat: String?
  /// A writer may let refcounts lag.
  package var hasLazyRefcounts = false
  /// L2 entries have 16 bytes.
  package var hasExtendedL2 = false
  /// How clusters are compressed, should any be.
  package var compression = CompressionMethod.deflate
  /// Each guest cluster has a host cluster from the start.
  package var isPreallocated = false

  /// QEMU's defaults for a disk of `virtualSize` bytes.
  package init(virtualSize: UInt64) { self.virtualSize = virtualSize }
}

/// The layout of a new image.
///
/// Bytes that are neither in the first cluster nor in ``tables(_:)`` are zero, so they can stay a hole.
package struct ImageTemplate: Sendable {
  /// The header in the first cluster.
  package let header: ImageHeader
  /// The first cluster.
  ///
  /// Order: a file that gets its header last is never mistaken for a complete image.
  package let firstCluster: [UInt8]
  private let plan: ClusterPlan

  /// The clusters, by index, that have to be written besides the first.
  package var tableClusters: Range<UInt64> { 1..<plan.writtenEnd }
  /// Where the guest's clusters are, in bytes of the file; empty without preallocation.
  package var data: Range<UInt64> {
    plan.dataStart << UInt64(plan.geometry.clusterBits)..<fileLength
  }
  /// The length that the file has at the end.
  package var fileLength: UInt64 { plan.total << UInt64(plan.geometry.clusterBits) }

  /// Lays out a new image; throws for what no image can be.
  package static func newImage(_ options: ImageOptions) throws(FormatError) -> ImageTemplate {
    let (padded, overflow) = options.virtualSize.addingReportingOverflow(511)
    let geometry = try Geometry(
      version: options.version, clusterBits: options.clusterBits,
      refcountOrder: options.refcountOrder, virtualSize: overflow ? UInt64.max : padded & ~511,
      hasExtendedL2: options.hasExtendedL2)
    try options.checkVersion()
    let plan = ClusterPlan(geometry, isPreallocated: options.isPreallocated)
    try check(
      "refcount_table_clusters", plan.tableClusters,
      in: 1...UInt64(Geometry.maximumRefcountTableBytes / geometry.clusterSize))
    var header = ImageHeader(
      geometry: geometry, l1TableOffset: plan.l1Start << UInt64(geometry.clusterBits),
      l1Size: max(1, geometry.l1EntriesNeeded),
      refcountTableOffset: UInt64(geometry.clusterSize),
      refcountTableClusters: Int(plan.tableClusters),
      incompatibleFeatures: options.incompatibleFeatures,
      compatibleFeatures: options.hasLazyRefcounts ? ImageHeader.lazyRefcountsFeature : 0,
      compressionType: options.compression,
      headerLength: options.version >= 3 ? ImageHeader.version3Length : ImageHeader.version2Length,
      backingFile: options.backingFile)
    if options.version >= 3, geometry.clusterSize > 4096 {
      header.extensions.append(
        HeaderExtension(
          type: HeaderExtension.featureNamesType, data: FeatureName.standardTable))
    }
    header.backingFormat = options.backingFormat
    return ImageTemplate(header: header, firstCluster: try header.encoded(), plan: plan)
  }

  /// The bytes of some of `tableClusters`.
  package func tables(_ clusters: Range<UInt64>) -> [UInt8] {
    var bytes: [UInt8] = []
    bytes.reserveCapacity(clusters.count * plan.geometry.clusterSize)
    for cluster in clusters { bytes += plan.table(cluster) }
    return bytes
  }
}

extension ImageOptions {
  fileprivate func checkVersion() throws(FormatError) {
    guard version < 3 else { return }
    if hasLazyRefcounts { throw .unsupportedFeature(name: "lazy refcounts in version 2") }
    if hasExtendedL2 { throw .unsupportedFeature(name: "extended L2 entries in version 2") }
    if compression != .deflate { throw .unsupportedFeature(name: "zstd in version 2") }
  }

  fileprivate var incompatibleFeatures: UInt64 {
    (hasExtendedL2 ? ImageHeader.IncompatibleFeature.extendedL2 : 0)
      | (compression != .deflate ? ImageHeader.IncompatibleFeature.compressionType : 0)
  }
}

/// Which clusters the parts of a new image take.
private struct ClusterPlan: Sendable {
  let geometry: Geometry
  private(set) var tableClusters: UInt64 = 1
  private var blockClusters: UInt64 = 1
  private let l1Clusters: UInt64
  private let l2Clusters: UInt64
  private let dataClusters: UInt64

  private var blockStart: UInt64 { 1 + tableClusters }
  var l1Start: UInt64 { blockStart + blockClusters }
  private var l2Start: UInt64 { l1Start + l1Clusters }
  var dataStart: UInt64 { l2Start + l2Clusters }
  var total: UInt64 { dataStart + dataClusters }
  /// The first cluster behind those that are not zero.
  var writtenEnd: UInt64 { l2Clusters == 0 ? l1Start : dataStart }

  init(_ geometry: Geometry, isPreallocated: Bool) {
    self.geometry = geometry
    let clusterSize = UInt64(geometry.clusterSize)
    // A disk of size 0 gets an L1 entry too, so that no reader meets a table without a place.
    let entries = UInt64(geometry.l1EntriesNeeded)
    l1Clusters = (max(1, entries) * 8 + clusterSize - 1) / clusterSize
    l2Clusters = isPreallocated ? entries : 0
    dataClusters = isPreallocated ? geometry.guestClusterCount : 0
    // The blocks count themselves and the table. Both only grow, by less each time.
    while true {
      let perBlock = UInt64(geometry.refcountsPerBlock)
      let blocks = (total + perBlock - 1) / perBlock
      let table = (blocks * 8 + clusterSize - 1) / clusterSize
      if blocks == blockClusters, table == tableClusters { return }
      blockClusters = max(blocks, blockClusters)
      tableClusters = max(table, tableClusters)
    }
  }

  /// The bytes of one cluster of tables.
  func table(_ cluster: UInt64) -> [UInt8] {
    let entries = UInt64(geometry.clusterSize / 8)
    if cluster < blockStart {
      return references(from: (cluster - 1) * entries, to: blockStart, count: blockClusters) {
        RefcountTableEntry(blockOffset: $0).rawValue
      }
    }
    if cluster < l1Start { return refcounts(from: (cluster - blockStart)) }
    if cluster < l2Start {
      return references(from: (cluster - l1Start) * entries, to: l2Start, count: l2Clusters) {
        L1Entry(tableOffset: $0, copied: true).rawValue
      }
    }
    // Subclusters of an extended entry are not allocated: they read zero, or what lies below.
    let perTable = UInt64(geometry.l2EntriesPerTable)
    let stride = geometry.clusterSize / geometry.l2EntriesPerTable
    return references(
      from: (cluster - l2Start) * perTable, to: dataStart, count: dataClusters, stride: stride
    ) {
      let own = ClusterLayout.Host.cluster($0, copied: true)
      return ClusterLayout(host: own, allocated: geometry.hasExtendedL2 ? 0 : 1).words(geometry)
        .first
    }
  }

  /// A table whose entries from `first` on refer to the clusters from `start` on, of which there are
  /// `count`.
  private func references(
    from first: UInt64, to start: UInt64, count: UInt64, stride: Int = 8,
    _ entry: (UInt64) -> UInt64
  ) -> [UInt8] {
    var bytes = [UInt8](repeating: 0, count: geometry.clusterSize)
    for place in 0..<geometry.clusterSize / stride where first + UInt64(place) < count {
      let offset = (start + first + UInt64(place)) << UInt64(geometry.clusterBits)
      BigEndian.store(entry(offset), in: &bytes, at: place * stride)
    }
    return bytes
  }

  /// A refcount block.
  private func refcounts(from block: UInt64) -> [UInt8] {
    var bytes = [UInt8](repeating: 0, count: geometry.clusterSize)
    let first = block * UInt64(geometry.refcountsPerBlock)
    for index in 0..<geometry.refcountsPerBlock where first + UInt64(index) < total {
      RefcountBlock.set(1, in: &bytes, index: index, order: geometry.refcountOrder)
    }
    return bytes
  }
}
