// A new refcount table with new blocks, for an image whose old ones cannot hold the truth: an entry that
// is no place for a block, a block that is something else as well, no block where one is needed.
//
//     1  places are chosen where nothing is: free clusters of the file, then behind its end
//     2  blocks and table are written there       the old structure is as it was
//     3  sync
//     4  the header's two fields, in one sector   from here on the new one counts
//     5  sync
//
// The new blocks count the new structure and all other references; the old structure is not among them,
// so it is free from 4 on. A crash before 4 leaves the old structure and some bytes in places that nobody
// refers to.
//
// An entry that names a place behind the end of the file reads zero there, and has to go on doing so: such
// places are not free. If they are too many to be remembered, there is no new structure.
//
// Which blocks are needed depends on where the new structure lies, and that on how many blocks it has:
// places are taken until nothing is missing. A block counts many clusters, so that ends soon.

internal import BlockIO
internal import HostSystem
internal import Qcow2Format

extension CheckRun {
  /// Replaces the refcount table and all blocks.
  ///
  /// With `keepsLeaks`, what an old block that can be read counts stays counted, and nothing is
  /// written over it.
  func rebuildRefcounts(keepsLeaks: Bool) throws(ImageError) {
    var old = ReferenceCounts(capacity: counts.capacity)
    if keepsLeaks { try addOldRefcounts(to: &old) }
    var plan = RebuildPlan(check: self, old: old, startsBehindEnd: keepsLeaks)
    try plan.makeRoom()
    for (block, place) in plan.blocks.sorted(by: { $0.key < $1.key }) {
      try storage.writeTable(
        content(ofBlock: block, plan), at: place << UInt64(geometry.clusterBits))
    }
    var table = [UInt8](repeating: 0, count: plan.table.count * geometry.clusterSize)
    for (block, place) in plan.blocks {
      let entry = RefcountTableEntry(blockOffset: place << UInt64(geometry.clusterBits))
      BigEndian.store(entry.rawValue, in: &table, at: block * 8)
    }
    let tableOffset = plan.table.lowerBound << UInt64(geometry.clusterBits)
    try storage.writeTable(table, at: tableOffset)
    var fields = [UInt8](repeating: 0, count: 12)
    BigEndian.store(tableOffset, in: &fields, at: 0)
    BigEndian.store(UInt32(plan.table.count), in: &fields, at: 8)
    // Order: blocks and table; then the header, whose two fields lie in one sector; only then is the
    // old structure free.
    try onStorage { () throws(StorageError) in try storage.flush() }
    try storage.replaceTable(try storage.readTable(fields.count, at: 48), with: fields, at: 48)
    try onStorage { () throws(StorageError) in try storage.flush() }
  }

  /// The refcounts that old blocks hold for clusters nobody refers to, if they are nothing but blocks.
  private func addOldRefcounts(to old: inout ReferenceCounts) throws(ImageError) {
    for index in refcountTable.indices {
      guard case .at(let offset) = place(ofBlock: index),
        counts[geometry.clusterIndex(containing: offset)] == 1
      else { continue }
      let bytes = try readBytes(geometry.clusterSize, at: offset)
      for (position, cluster) in clusters(ofBlock: index).enumerated() where cluster < clusterCount
      {
        let refcount = bytes.refcount(at: position, geometry)
        if refcount > references(of: cluster), refcountClusters[cluster] == nil {
          old.add(Int(clamping: refcount), to: cluster)
        }
      }
    }
  }

  private func content(ofBlock block: Int, _ plan: RebuildPlan) -> [UInt8] {
    var bytes = [UInt8](repeating: 0, count: geometry.clusterSize)
    for (position, cluster) in clusters(ofBlock: block).enumerated() {
      let value = plan.refcount(of: cluster)
      if value == 0 { continue }
      RefcountBlock.set(value, in: &bytes, index: position, order: geometry.refcountOrder)
    }
    return bytes
  }
}

/// Where a new refcount structure goes.
struct RebuildPlan {
  private let check: CheckRun
  private let old: ReferenceCounts
  /// The cluster of each block that is needed.
  private(set) var blocks: [Int: UInt64] = [:]
  /// The clusters of the table.
  private(set) var table: Range<UInt64> = 0..<0
  /// Blocks that have no place yet.
  private var homeless: [Int] = []
  private var needed: Set<Int> = []
  private var taken: Set<UInt64> = []
  private let outside: OutsideClusters
  /// No cluster before this one is free.
  private var next: UInt64

  /// A plan for what was counted, with refcounts of `old` for clusters that nobody refers to.
  init(check: CheckRun, old: ReferenceCounts, startsBehindEnd: Bool) {
    self.check = check
    self.old = old
    outside = check.outside.sorted()
    next = startsBehindEnd ? check.clusterCount : 1
    for block in 0...check.block(of: check.clusterCount - 1) {
      let all = check.clusters(ofBlock: block)
      let clusters = all.lowerBound..<min(all.upperBound, check.clusterCount)
      if check.counts.hasNone(in: clusters), old.hasNone(in: clusters) { continue }
      if let used = clusters.first(where: { refcount(of: $0) > 0 }) { need(blockFor: used) }
    }
  }

  /// The refcount of a cluster in the new structure.
  func refcount(of cluster: UInt64) -> UInt64 {
    if taken.contains(cluster) || table.contains(cluster) { return 1 }
    guard cluster < check.clusterCount else { return 0 }
    var count = check.counts[cluster]
    // Only what is not the old structure; what it counted for nobody comes on top.
    count -= check.refcountClusters[cluster, default: 0]
    return min(UInt64(max(count, old[cluster])), check.geometry.maximumRefcount)
  }

  /// Takes clusters until every cluster in use has a block, and the table holds them all.
  mutating func makeRoom() throws(ImageError) {
    let perCluster = check.geometry.clusterSize / 8
    while true {
      while let block = homeless.popLast() {
        let place = takeOne()
        blocks[block] = place
        need(blockFor: place)
      }
      let entries = (needed.max() ?? 0) + 1
      let tableClusters = (entries + perCluster - 1) / perCluster
      guard tableClusters * check.geometry.clusterSize <= Geometry.maximumRefcountTableBytes else {
        throw .tablesFull(path: check.storage.path)
      }
      if table.count >= tableClusters { return }
      // What was chosen for a smaller table is free again.
      table = run(of: tableClusters)
      for cluster in table { need(blockFor: cluster) }
    }
  }

  private mutating func need(blockFor cluster: UInt64) {
    let block = check.block(of: cluster)
    if needed.insert(block).inserted { homeless.append(block) }
  }

  private func isFree(_ cluster: UInt64) -> Bool {
    if taken.contains(cluster) { return false }
    if cluster >= check.clusterCount { return !outside.contains(cluster) }
    return check.counts[cluster] == 0 && old[cluster] == 0
  }

  private mutating func takeOne() -> UInt64 {
    while !isFree(next) || table.contains(next) { next += 1 }
    taken.insert(next)
    return next
  }

  private func run(of count: Int) -> Range<UInt64> {
    var start = next
    var end = next
    while end - start < UInt64(count) {
      if !isFree(end) { start = end + 1 }
      end += 1
    }
    return start..<end
  }
}

/// Clusters behind the end of a file, as runs.
struct OutsideClusters {
  private var runs: [Range<UInt64>] = []
  /// Every cluster that was added is here.
  private(set) var isComplete = true

  /// How many runs are remembered.
  static let limit = 1 << 16

  /// Takes a run of clusters in.
  mutating func add(_ run: Range<UInt64>) {
    if run.lowerBound >= ReferenceCounts.maximumCapacity { return }
    if let last = runs.last, last == run { return }
    if runs.count == Self.limit { isComplete = false } else { runs.append(run) }
  }

  /// The same, ready to be asked: in order, and joined where they touch.
  func sorted() -> OutsideClusters {
    var result = OutsideClusters()
    for run in runs.sorted(by: { $0.lowerBound < $1.lowerBound }) {
      if let last = result.runs.last, run.lowerBound <= last.upperBound {
        result.runs[result.runs.count - 1] =
          last.lowerBound..<max(last.upperBound, run.upperBound)
      } else {
        result.runs.append(run)
      }
    }
    result.isComplete = isComplete
    return result
  }

  /// The cluster is in one of the runs, which are sorted.
  func contains(_ cluster: UInt64) -> Bool {
    var low = 0
    var high = runs.count
    while low < high {
      let middle = (low + high) / 2
      if runs[middle].upperBound <= cluster { low = middle + 1 } else { high = middle }
    }
    return low < runs.count && runs[low].contains(cluster)
  }
}
