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
    let start = header.refcountTableOffset
    guard reference(start, UInt64(tableBytes)) else {
      report.needsNewRefcounts = true
      return
    }
    let first = geometry.clusterIndex(containing: start)
    for cluster in first..<first + UInt64(header.refcountTableClusters) {
      refcountClusters[cluster, default: 0] += 1
      // A table that is something else as well cannot be written to.
      if counts[cluster] != 1 { report.needsNewRefcounts = true }
    }
    refcountTable = try readEntries(tableBytes / 8, at: start)
    for (index, raw) in refcountTable.enumerated() where raw != 0 {
      let offset: UInt64?
      do { offset = try RefcountTableEntry(rawValue: raw).block(in: geometry) } catch {
        report.addBrokenRefcounts(.refcountTableEntry(error))
        continue
      }
      guard let offset else { continue }
      let cluster = geometry.clusterIndex(containing: offset)
      guard cluster < clusterCount else {
        report.addBrokenRefcounts(
          .outsideFile(offset: offset, length: UInt64(geometry.clusterSize)))
        continue
      }
      counts.add(1, to: cluster)
      refcountClusters[cluster, default: 0] += 1
      // As a refcount would count them: QEMU sees no more.
      let references = min(UInt64(counts[cluster]), geometry.maximumRefcount)
      if references != 1 {
        report.addBrokenRefcounts(
          .refcountBlockShared(block: index, references: Int(references)))
      } else if counts[cluster] != 1 {
        report.needsNewRefcounts = true
      }
    }
  }

  /// Where a refcount block is, as far as it can be used at all.
  func place(ofBlock index: Int) -> BlockPlace {
    guard index < refcountTable.count else { return .none }
    let offset = RefcountTableEntry(rawValue: refcountTable[index]).blockOffset
    // QEMU reads zeroes behind the end of the file, but nothing where no file can reach.
    let isReadable = offset <= UInt64(Int64.max) - UInt64(geometry.clusterSize)
    if geometry.offsetInCluster(offset) != 0 || !isReadable { return .broken }
    return offset == 0 || offset >= fileLength ? .none : .at(offset)
  }

  /// The refcount block that counts a cluster.
  func block(of cluster: UInt64) -> Int { Int(cluster / UInt64(geometry.refcountsPerBlock)) }

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
    let blockCount = block(of: clusterCount - 1) + 1
    for index in 0..<blockCount {
      progress(blockCount + index, 2 * blockCount)
      let all = clusters(ofBlock: index)
      let clusters = all.lowerBound..<min(all.upperBound, clusterCount)
      switch place(ofBlock: index) {
      case .broken:
        report.needsNewRefcounts = true
        report.addError(.refcountsUnreadable(clusters: clusters), times: clusters.count)
      case .none:
        if counts.hasNone(in: clusters) { continue }
        for cluster in clusters {
          // Where there is no block, nothing can be counted up.
          if counts[cluster] > 0 { report.needsNewRefcounts = true }
          compare(cluster, refcount: 0)
        }
      case .at(let offset):
        let bytes = try readBytes(geometry.clusterSize, at: offset)
        compare(bytes, from: all.lowerBound)
      }
    }
    // Blocks for what lies behind the file. Each is in use once, or the image is corrupt and other
    // things matter more; so their number is bounded by the file.
    if !report.needsNewRefcounts, blockCount < refcountTable.count {
      for index in blockCount..<refcountTable.count {
        guard case .at(let offset) = place(ofBlock: index) else { continue }
        let bytes = try readBytes(geometry.clusterSize, at: offset)
        for position in 0..<geometry.refcountsPerBlock
        where bytes.refcount(at: position, geometry) != 0 { report.leaksBehindEnd += 1 }
      }
    }
    try lookUpFarClusters(from: blockCount)
  }

  private mutating func compare(_ bytes: [UInt8], from first: UInt64) {
    let order = geometry.refcountOrder
    let count = geometry.refcountsPerBlock
    bytes.withBytes { bytes in
      for position in 0..<count {
        let cluster = first + UInt64(position)
        let refcount = RefcountBlock.value(in: bytes, index: position, order: order)
        if cluster < clusterCount {
          compare(cluster, refcount: refcount)
        } else if refcount != 0 {
          report.leaksBehindEnd += 1
          if refcount == 1 { usedOnce.insert(cluster) }
        }
      }
    }
  }

  private mutating func compare(_ cluster: UInt64, refcount: UInt64) {
    let found = counts[cluster]
    if refcount == 0, found == 0 { return }
    if UInt64(found) > geometry.maximumRefcount {
      report.addBrokenEntry(
        .tooManyReferences(cluster: cluster, references: found),
        times: found - Int(geometry.maximumRefcount))
    }
    let references = min(UInt64(found), geometry.maximumRefcount)
    if refcount == 1 { usedOnce.insert(cluster) }
    if refcount > 0 || references > 0 {
      report.imageEndOffset = HostOffset((cluster + 1) << UInt64(geometry.clusterBits))
    }
    if refcount > references {
      report.addLeak(.leaked(cluster: cluster, refcount: refcount, references: references))
    } else if refcount < references {
      report.lowRefcounts += 1
      report.addCorruption(
        .refcountTooLow(cluster: cluster, refcount: refcount, references: references))
    }
  }

  /// Reads the refcounts of clusters behind the file that entries name: their marks go by them.
  private mutating func lookUpFarClusters(from blockCount: Int) throws(ImageError) {
    var read: (block: Int, bytes: [UInt8])?
    for cluster in farClusters.sorted() where block(of: cluster) >= blockCount {
      let index = block(of: cluster)
      guard case .at(let offset) = place(ofBlock: index) else { continue }
      if read?.block != index { read = (index, try readBytes(geometry.clusterSize, at: offset)) }
      let position = Int(cluster - clusters(ofBlock: index).lowerBound)
      if read?.bytes.refcount(at: position, geometry) == 1 { usedOnce.insert(cluster) }
    }
  }

  // MARK: - Marks of the active tables

  /// Checks that exactly those entries say "only user" whose cluster has a refcount of one.
  mutating func checkCopiedFlags() throws(ImageError) {
    var active: [UInt64: Int] = [:]
    for table in l1Tables where table.isActive {
      for raw in table.entries where L1Entry(rawValue: raw).tableOffset != 0 {
        let entry = L1Entry(rawValue: raw)
        guard let isOnlyUser = isOnlyUser(entry.tableOffset) else { continue }
        checkCopied("L1", raw, entry.isCopied, isOnlyUser, times: 1)
        active[entry.tableOffset, default: 0] += 1
      }
    }
    for (offset, times) in active.sorted(by: { $0.key < $1.key }) where tables[offset] != nil {
      let bytes = try readBytes(geometry.clusterSize, at: offset)
      bytes.withBytes { bytes in
        for index in 0..<form.entriesPerTable {
          let entry = form.entry(bytes, index)
          switch form.kind(entry) {
          case .normal, .zeroAllocated:
            let user = form.hasDataFile ? true : isOnlyUser(entry.raw.hostOffset)
            if let user {
              checkCopied("L2", entry.raw.rawValue, entry.raw.isCopied, user, times: times)
            }
          case .compressed, .zero, .unallocated: break
          }
        }
      }
    }
  }

  /// Whether the refcount of the cluster at an offset is one; nil if it cannot be read, which is an
  /// error already.
  private func isOnlyUser(_ host: UInt64) -> Bool? {
    let cluster = geometry.clusterIndex(containing: host)
    if usedOnce.contains(cluster) { return true }
    if case .broken = place(ofBlock: block(of: cluster)) { return nil }
    return false
  }

  private mutating func checkCopied(
    _ table: String, _ raw: UInt64, _ isCopied: Bool, _ isOnlyUser: Bool, times: Int
  ) {
    if isOnlyUser == isCopied { return }
    report.addCopiedFlag(
      .copiedFlag(table: table, entry: raw, isOnlyUser: isOnlyUser), isMissing: isOnlyUser,
      times: times)
  }
}

extension [UInt8] {
  /// A refcount of a refcount block.
  func refcount(at position: Int, _ geometry: Geometry) -> UInt64 {
    withBytes { RefcountBlock.value(in: $0, index: position, order: geometry.refcountOrder) }
  }
}
