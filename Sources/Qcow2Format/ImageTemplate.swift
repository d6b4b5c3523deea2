/// The bytes of a new, empty image.
///
///     cluster 0       1 ...            ...               ...
///     header        | refcount table | refcount blocks | L1 table (zeroes)
///
/// Every cluster has a refcount of one and there is no L2 table yet. Bytes that are not in a piece
/// are zero, so they can stay a hole of the file.
package struct ImageTemplate: Sendable {
  /// The header in the first piece.
  package var header: ImageHeader
  /// What to write and where, in the order of offsets; the first is the header's cluster.
  ///
  /// Order: a file that gets its header last is never mistaken for a complete image.
  package var pieces: [(offset: UInt64, bytes: [UInt8])]
  /// The length that the file has at the end.
  package var fileLength: UInt64

  /// Lays out a new image; `virtualSize` is rounded up to 512 as QEMU does when it creates one.
  package static func newImage(
    version: Int, clusterBits: Int, refcountOrder: Int, virtualSize: UInt64,
    backingFile: String?, backingFormat: String?, lazyRefcounts: Bool
  ) throws(FormatError) -> ImageTemplate {
    let (padded, overflow) = virtualSize.addingReportingOverflow(511)
    let geometry = try Geometry(
      version: version, clusterBits: clusterBits, refcountOrder: refcountOrder,
      virtualSize: overflow ? UInt64.max : padded & ~511)
    guard version >= 3 || !lazyRefcounts else {
      throw .unsupportedFeature(name: "lazy refcounts in version 2")
    }
    let plan = ClusterPlan(geometry)
    let clusterSize = UInt64(geometry.clusterSize)
    var header = ImageHeader(
      geometry: geometry, l1TableOffset: plan.l1Start * clusterSize,
      l1Size: max(1, geometry.l1EntriesNeeded), refcountTableOffset: clusterSize,
      refcountTableClusters: plan.tableClusters,
      compatibleFeatures: lazyRefcounts ? ImageHeader.lazyRefcountsFeature : 0,
      headerLength: version >= 3 ? ImageHeader.version3Length : ImageHeader.version2Length,
      backingFile: backingFile)
    if version >= 3, geometry.clusterSize > 4096 {
      header.extensions.append(
        HeaderExtension(
          type: HeaderExtension.featureNamesType, data: FeatureName.standardTable))
    }
    header.backingFormat = backingFormat
    return ImageTemplate(
      header: header,
      pieces: [
        (0, try header.encoded()),
        (clusterSize, plan.refcountTable(geometry)),
        (plan.blockStart * clusterSize, plan.refcountBlocks(geometry)),
      ], fileLength: plan.total * clusterSize)
  }
}

/// Which clusters the metadata of a new image takes.
private struct ClusterPlan {
  var tableClusters = 1
  var blockClusters = 1
  let l1Clusters: Int

  var blockStart: UInt64 { UInt64(1 + tableClusters) }
  var l1Start: UInt64 { blockStart + UInt64(blockClusters) }
  var total: UInt64 { l1Start + UInt64(l1Clusters) }

  init(_ geometry: Geometry) {
    let clusterSize = geometry.clusterSize
    // A disk of size 0 gets an L1 entry too, so that no reader meets a table without a place.
    l1Clusters = (max(1, geometry.l1EntriesNeeded) * 8 + clusterSize - 1) / clusterSize
    // The blocks count themselves and the table. Both only grow, by less each time.
    while true {
      let perBlock = geometry.refcountsPerBlock
      let blocks = (Int(total) + perBlock - 1) / perBlock
      let table = (blocks * 8 + clusterSize - 1) / clusterSize
      if blocks == blockClusters, table == tableClusters { return }
      blockClusters = max(blocks, blockClusters)
      tableClusters = max(table, tableClusters)
    }
  }

  func refcountTable(_ geometry: Geometry) -> [UInt8] {
    var bytes = [UInt8](repeating: 0, count: tableClusters * geometry.clusterSize)
    for block in 0..<blockClusters {
      let offset = (blockStart + UInt64(block)) * UInt64(geometry.clusterSize)
      BigEndian.store(
        RefcountTableEntry(blockOffset: offset).rawValue, in: &bytes, at: block * 8)
    }
    return bytes
  }

  func refcountBlocks(_ geometry: Geometry) -> [UInt8] {
    var bytes = [UInt8](repeating: 0, count: blockClusters * geometry.clusterSize)
    for cluster in 0..<Int(total) {
      RefcountBlock.set(1, in: &bytes, index: cluster, order: geometry.refcountOrder)
    }
    return bytes
  }
}
