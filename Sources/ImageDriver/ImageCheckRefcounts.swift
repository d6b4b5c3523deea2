internal import BlockIO
internal import HostSystem
internal import Qcow2Format

// Comparing: what the refcounts say, against what was counted.

extension CheckRun {
  /// Where the refcounts of a region are.
  enum BlockPlace {
    /// All of them are zero.
    case none
    case at(UInt64)
    /// They cannot be read.
    case broken
  }

  /// Counts the refcount table and its blocks.
  mutating func countRefcountStructures() throws(ImageError) {
    let tableBytes = header.refcountTableClusters * geometry.clusterSize
    guard reference(header.refcountTableOffset, UInt64(tableBytes)) else { return }
    refcountTable = try readEntries(tableBytes / 8, at: header.refcountTableOffset)
    for (index, raw) in refcountTable.enumerated() where raw != 0 {
      let offset: UInt64?
      do { offset = try RefcountTableEntry(rawValue: raw).block(in: geometry) } catch {
        report.addCorruption(.entry(error))
        continue
      }
      guard let offset, reference(offset, UInt64(geometry.clusterSize)) else { continue }
      let references = counts[geometry.clusterIndex(containing: offset)]
      if references != 1 {
        report.addCorruption(.refcountBlockShared(block: index, references: references))
      }
    }
  }

  /// Where a refcount block is, as far as it can be used at all.
  func place(ofBlock index: Int) -> BlockPlace {
    guard index < refcountTable.count else { return .none }
    let offset = RefcountTableEntry(rawValue: refcountTable[index]).blockOffset
    if geometry.offsetInCluster(offset) != 0 { return .broken }
    return offset == 0 || offset >= fileLength ? .none : .at(offset)
  }

  /// The clusters that a refcount block counts, in the file or behind it.
  func clusters(ofBlock index: Int) -> Range<UInt64> {
    let first = UInt64(index) * UInt64(geometry.refcountsPerBlock)
    return first..<first + UInt64(geometry.refcountsPerBlock)
  }

  /// The references of a cluster as a refcount can hold them; none behind the end of the file.
  func references(of cluster: UInt64) -> UInt64 {
    cluster < clusterCount ? min(UInt64(counts[cluster]), geometry.maximumRefcount) : 0
  }

  /// Compares the refcount of each cluster of the file with its references.
  mutating func compare() throws(ImageError) {
    let perBlock = UInt64(geometry.refcountsPerBlock)
    let blockCount = Int((clusterCount + perBlock - 1) / perBlock)
    for index in 0..<blockCount {
      let all = clusters(ofBlock: index)
      let clusters = all.lowerBound..<min(all.upperBound, clusterCount)
      switch place(ofBlock: index) {
      case .broken:
        report.addError(.refcountsUnreadable(clusters: clusters), times: clusters.count)
      case .none:
        if counts.hasNone(in: clusters) { continue }
        for cluster in clusters { compare(cluster, refcount: 0) }
      case .at(let offset):
        let bytes = try readBytes(geometry.clusterSize, at: offset)
        for cluster in all {
          let position = Int(cluster - all.lowerBound)
          let refcount = bytes.refcount(at: position, geometry)
          if cluster < clusterCount {
            compare(cluster, refcount: refcount)
          } else if refcount != 0 {
            report.leaksBehindEnd += 1
          }
        }
      }
    }
    // Blocks for what lies behind the file. Each is in use once, or the image is corrupt and other
    // things matter more; so their number is bounded by the file.
    guard report.corruptions == 0, blockCount < refcountTable.count else { return }
    for index in blockCount..<refcountTable.count {
      guard case .at(let offset) = place(ofBlock: index) else { continue }
      let bytes = try readBytes(geometry.clusterSize, at: offset)
      for position in 0..<geometry.refcountsPerBlock
      where bytes.refcount(at: position, geometry) != 0 { report.leaksBehindEnd += 1 }
    }
  }

  private mutating func compare(_ cluster: UInt64, refcount: UInt64) {
    let found = counts[cluster]
    if UInt64(found) > geometry.maximumRefcount {
      report.addCorruption(
        .tooManyReferences(cluster: cluster, references: found),
        times: found - Int(geometry.maximumRefcount))
    }
    let references = references(of: cluster)
    if refcount == 1 { usedOnce.insert(cluster) }
    if refcount > 0 || references > 0 {
      report.imageEndOffset = HostOffset((cluster + 1) << UInt64(geometry.clusterBits))
    }
    if refcount > references {
      report.addLeak(.leaked(cluster: cluster, refcount: refcount, references: references))
    } else if refcount < references {
      report.addCorruption(
        .refcountTooLow(cluster: cluster, refcount: refcount, references: references))
    }
  }

  // MARK: - Marks of the active tables

  /// Checks that exactly those entries say "only user" whose cluster has a refcount of one.
  mutating func checkCopiedFlags() throws(ImageError) {
    for raw in activeL1 where L1Entry(rawValue: raw).tableOffset != 0 {
      let entry = L1Entry(rawValue: raw)
      checkCopied("L1", raw, entry.isCopied, host: entry.tableOffset, times: 1)
    }
    for (offset, use) in tables.sorted(by: { $0.key < $1.key }) where use.active > 0 {
      for raw in try readEntries(geometry.l2EntriesPerTable, at: offset) {
        let entry = L2Entry(rawValue: raw)
        if entry.isCompressed || entry.hostOffset == 0 { continue }
        checkCopied("L2", raw, entry.isCopied, host: entry.hostOffset, times: use.active)
      }
    }
  }

  private mutating func checkCopied(
    _ table: String, _ raw: UInt64, _ isCopied: Bool, host: UInt64, times: Int
  ) {
    let cluster = geometry.clusterIndex(containing: host)
    // What cannot be read is an error already.
    if case .broken = place(ofBlock: Int(cluster) / geometry.refcountsPerBlock) { return }
    let isOnlyUser = usedOnce.contains(cluster)
    if isOnlyUser == isCopied { return }
    if isOnlyUser { report.missingCopiedFlags += times }
    report.addCorruption(
      .copiedFlag(table: table, entry: raw, isOnlyUser: isOnlyUser), times: times)
  }
}

extension [UInt8] {
  /// A refcount of a refcount block.
  func refcount(at position: Int, _ geometry: Geometry) -> UInt64 {
    withBytes { RefcountBlock.value(in: $0, index: position, order: geometry.refcountOrder) }
  }
}
