internal import Qcow2Format

/// What the allocator knows in memory: values only, no I/O.
struct AllocatorState: Sendable {
  /// The refcount table, empty until it is first needed.
  var table: [UInt64] = []
  var tableOffset: UInt64
  /// The table's clusters as the header says; good until the table is read.
  let tableClusters: Int
  let l1Clusters: Range<UInt64>
  /// The clusters of the LUKS header.
  let encryptionClusters: Range<UInt64>
  /// Claimed ahead of use, the next to go out first.
  var ahead: Range<UInt64> = 0..<0
  /// Claimed once and given back, or the place of an earlier refcount table.
  var returned: [Range<UInt64>] = []
  /// No cluster before this one is free.
  var searchStart: UInt64 = 0

  private var blocks: [(block: Int, bytes: [UInt8])] = []
  private let blockLimit: Int

  init(header: ImageHeader) {
    let geometry = header.geometry
    tableOffset = header.refcountTableOffset
    tableClusters = header.refcountTableClusters
    let first = geometry.clusterIndex(containing: header.l1TableOffset)
    let l1Bytes = UInt64(header.l1Size * 8 + geometry.clusterSize - 1)
    l1Clusters = first..<first + (l1Bytes >> UInt64(geometry.clusterBits))
    encryptionClusters = header.encryptionHeader.map { geometry.clusters(of: $0) } ?? 0..<0
    blockLimit = max(4, min(64, (4 << 20) / geometry.clusterSize))
  }

  /// Takes a run that was given back, as much of it as is wanted.
  mutating func takeReturned(upTo count: Int) -> Range<UInt64>? {
    guard let run = returned.popLast() else { return nil }
    let end = min(run.upperBound, run.lowerBound + UInt64(count))
    if end < run.upperBound { returned.append(end..<run.upperBound) }
    return run.lowerBound..<end
  }

  /// Whether the header, the L1 table, the LUKS header, the refcount table or a refcount block, without the one of
  /// index `known`, lies in `run`.
  func holdsMetadata(
    _ run: Range<UInt64>, _ geometry: Geometry, besides known: Int? = nil
  ) -> Bool {
    let tableStart = geometry.clusterIndex(containing: tableOffset)
    let perCluster = geometry.clusterSize / 8
    let tableRange = tableStart..<tableStart + UInt64((table.count + perCluster - 1) / perCluster)
    if run.contains(0) || run.overlaps(l1Clusters) || run.overlaps(tableRange)
      || run.overlaps(encryptionClusters)
    {
      return true
    }
    for (block, entry) in table.enumerated() where entry != 0 && block != known {
      if run.contains(geometry.clusterIndex(containing: entry)) { return true }
    }
    return false
  }

  /// Whether the place of a refcount block belongs to another block, the L1 table or the refcount
  /// table as well: a refcount written there would destroy it.
  func isShared(block: Int, _ geometry: Geometry) -> Bool {
    let place = geometry.clusterIndex(containing: table[block])
    return holdsMetadata(place..<place + 1, geometry, besides: block)
  }

  func has(block: Int) -> Bool { blocks.contains { $0.block == block } }

  /// Runs `body` with a block that is in memory, which becomes the last to be thrown out.
  mutating func withBlock<Result>(_ block: Int, _ body: (inout [UInt8]) -> Result) -> Result {
    guard let index = blocks.firstIndex(where: { $0.block == block }) else {
      preconditionFailure("a refcount block was used before it was read")
    }
    if index != blocks.count - 1 { blocks.append(blocks.remove(at: index)) }
    return body(&blocks[blocks.count - 1].bytes)
  }

  /// Keeps a block in memory, in the place of the one that was not used for longest.
  mutating func keep(_ bytes: [UInt8], block: Int) {
    if blocks.count >= blockLimit { blocks.removeFirst() }
    blocks.append((block, bytes))
  }

  /// Throws a block out, so that it is read again.
  mutating func forget(block: Int) { blocks.removeAll { $0.block == block } }
}
