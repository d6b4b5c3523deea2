// Which host clusters are in use, and the ones that are claimed ahead of use.
//
//     free (refcount 0) -- refill: refcounts written --> claimed ahead -- claim --> in a table
//          ^                                               |   ^                       |
//          |------------------- close ---------------------|   '--- giveBack ----------'
//          '---------------- release, after the disk forgot it ------------------------'
//
// Refcounts are written through at once, for some MiB of clusters in one write. Nothing syncs then:
// the flush that writes the first table entry for such a cluster syncs before it, and that covers the
// refcounts. A crash in between leaves clusters that are counted and not used: a leak, never a cluster
// with two users. Only a new refcount block or a new refcount table has ordering points of its own.
//
// The allocator's lock is held over its own small reads and writes of refcount blocks, never over
// guest data. Blocks in memory are never newer than the disk, so they may be thrown out at any time.

internal import BlockIO
internal import HostSystem
internal import Qcow2Format

/// Hands out the host clusters of one image.
final class ClusterAllocator: Sendable {
  let storage: any BlockStorage
  let geometry: Geometry
  let path: String
  private let marks: ImageMarks
  private let state: Monitor<AllocatorState>

  /// Claims are made in batches of about this many bytes.
  static let batchBytes = 4 << 20

  init(storage: any BlockStorage, header: ImageHeader, marks: ImageMarks) {
    self.storage = storage
    self.marks = marks
    path = storage.path
    geometry = header.geometry
    state = Monitor(AllocatorState(header: header))
  }

  /// Gives a run of 1 to `count` clusters whose refcounts are one, by index.
  ///
  /// `isInUse` tells whether tables in memory say that a cluster holds metadata: a refcount of zero is
  /// then a lie, and nothing is handed out any more.
  func claim(
    upTo count: Int, isInUse: (Range<UInt64>) -> Bool
  ) throws(ImageError) -> Range<UInt64> {
    try change { state throws(ImageError) in
      if let run = state.takeReturned(upTo: count) { return run }
      if state.ahead.isEmpty {
        let batch = max(count, max(1, Self.batchBytes >> geometry.clusterBits))
        state.ahead = try refill(&state, batch, isInUse)
      }
      let run =
        state.ahead.lowerBound..<min(state.ahead.upperBound, state.ahead.lowerBound + UInt64(count))
      state.ahead = run.upperBound..<state.ahead.upperBound
      return run
    }
  }

  /// Gives `count` neighbouring clusters whose refcounts are one.
  func claimRun(
    of count: Int, isInUse: (Range<UInt64>) -> Bool
  ) throws(ImageError) -> Range<UInt64> {
    // A new block counts itself, so that behind the end of the file no run is longer.
    guard count < geometry.refcountsPerBlock else {
      return try claimLongRun(of: count, isInUse: isInUse)
    }
    return try change { state throws(ImageError) in
      if state.ahead.count < count {
        let run = try findRun(
          &state, from: state.searchStart, atLeast: count, count, isInUse)
        // Order: as in `refill`.
        try setRefcounts(&state, run, to: 1)
        return run
      }
      let run = state.ahead.lowerBound..<state.ahead.lowerBound + UInt64(count)
      state.ahead = run.upperBound..<state.ahead.upperBound
      return run
    }
  }

  /// Takes back clusters that were claimed and that no table ever pointed to.
  func giveBack(_ run: Range<UInt64>) {
    state.withLock { state in state.returned.append(run) }
  }

  /// Takes one reference from each cluster, and gives those that nobody uses any more.
  ///
  /// Order: called when the disk points to them no more, so a crash leaves a leak at worst.
  func release(_ clusters: [UInt64]) throws(ImageError) -> [UInt64] {
    try change { state throws(ImageError) in
      var unused: [UInt64] = []
      for index in clusters {
        let old = try refcount(&state, index)
        // A cluster that is not counted is not ours to free; check will tell.
        if old == 0 { continue }
        try setRefcounts(&state, index..<index + 1, to: old - 1)
        if old == 1 {
          unused.append(index)
          state.searchStart = min(state.searchStart, index)
        }
      }
      return unused
    }
  }

  /// How many references a cluster has.
  func references(of cluster: UInt64) throws(ImageError) -> UInt64 {
    try state.withLock { state throws(ImageError) in try refcount(&state, cluster) }
  }

  /// Counts the references of claimed clusters, which nothing on disk points to.
  func setReferences(of run: Range<UInt64>, to count: UInt64) throws(ImageError) {
    precondition(count <= geometry.maximumRefcount, "more references than a refcount holds")
    try change { state throws(ImageError) in try setRefcounts(&state, run, to: count) }
  }

  /// Frees all that is claimed ahead of use.
  func close() throws(ImageError) {
    try change { state throws(ImageError) in
      let runs = state.returned + [state.ahead]
      // Forgotten first: when a write fails, what was counted down must not be handed out again. The
      // rest is a leak then.
      state.returned = []
      state.ahead = 0..<0
      for run in runs where !run.isEmpty { try setRefcounts(&state, run, to: 0) }
    }
  }

  /// Changes refcounts. What was written when it fails is not known: some clusters may stay counted.
  func change<Result: Sendable>(
    _ body: (inout sending AllocatorState) throws(ImageError) -> sending Result
  ) throws(ImageError) -> Result {
    do { return try state.withLock(body) } catch {
      marks.keepDirty()
      throw error
    }
  }

  // MARK: - Finding free clusters

  private func refill(
    _ state: inout AllocatorState, _ count: Int, _ isInUse: (Range<UInt64>) -> Bool
  ) throws(ImageError) -> Range<UInt64> {
    let run = try findRun(&state, from: state.searchStart, atLeast: 1, count, isInUse)
    // Order: written before any table entry that points there; the flush syncs in between.
    try setRefcounts(&state, run, to: 1)
    state.searchStart = run.upperBound
    return run
  }

  /// Finds free clusters, which have a refcount block then: at least `least`, at most `count`.
  private func findRun(
    _ state: inout AllocatorState, from start: UInt64, atLeast least: Int, _ count: Int,
    _ isInUse: (Range<UInt64>) -> Bool
  ) throws(ImageError) -> Range<UInt64> {
    try loadTable(&state)
    let perBlock = UInt64(geometry.refcountsPerBlock)
    var index = start
    // Every round looks on in one refcount block, and ends at the first run that is long enough.
    while true {
      let block = Int(index / perBlock)
      guard UInt64(block + 1) * perBlock <= Self.clusterLimit(geometry) else {
        throw .tablesFull(path: path)
      }
      if block >= state.table.count { try growTable(&state, isInUse) }
      if RefcountTableEntry(rawValue: state.table[block]) == .empty {
        try makeBlock(&state, block, isInUse)
        index = max(index, UInt64(block) * perBlock)
      }
      if let run = try freeRun(&state, from: index, block: block, count: count) {
        if run.count >= least {
          try checkUnused(run, state, isInUse)
          return run
        }
        index = run.upperBound
        if !index.isMultiple(of: perBlock) { continue }
      }
      index = UInt64(block + 1) * perBlock
    }
  }

  private func freeRun(
    _ state: inout AllocatorState, from start: UInt64, block: Int, count: Int
  ) throws(ImageError) -> Range<UInt64>? {
    let perBlock = geometry.refcountsPerBlock
    let base = UInt64(block) * UInt64(perBlock)
    let order = geometry.refcountOrder
    return try withBlock(&state, block) { bytes in
      bytes.withBytes { bytes in
        var first = Int(start - base)
        while first < perBlock,
          RefcountBlock.value(in: bytes, index: first, order: order) != 0
        { first += 1 }
        if first == perBlock { return nil }
        var end = first + 1
        while end < perBlock, end - first < count,
          RefcountBlock.value(in: bytes, index: end, order: order) == 0
        { end += 1 }
        return base + UInt64(first)..<base + UInt64(end)
      }
    }
  }

  func checkUnused(
    _ run: Range<UInt64>, _ state: AllocatorState, _ isInUse: (Range<UInt64>) -> Bool
  ) throws(ImageError) {
    if state.holdsMetadata(run, geometry) || isInUse(run) {
      throw .corrupt(
        path: path, reason: "a refcount of zero for metadata near host cluster \(run.lowerBound)")
    }
  }

  // MARK: - New refcount blocks and a larger table

  /// Makes the block for a region that has none; it takes the region's first cluster.
  private func makeBlock(
    _ state: inout AllocatorState, _ block: Int, _ isInUse: (Range<UInt64>) -> Bool
  ) throws(ImageError) {
    let index = UInt64(block) * UInt64(geometry.refcountsPerBlock)
    try checkUnused(index..<index + 1, state, isInUse)
    var bytes = [UInt8](repeating: 0, count: geometry.clusterSize)
    RefcountBlock.set(1, in: &bytes, index: 0, order: geometry.refcountOrder)
    let offset = index << UInt64(geometry.clusterBits)
    let entry = RefcountTableEntry(blockOffset: offset)
    // Order: the block, then the entry that points to it; the next flush syncs the entry before any
    // table entry that counts on it.
    try write(bytes, at: offset)
    try flush()
    var entryBytes = [UInt8](repeating: 0, count: 8)
    BigEndian.store(entry.rawValue, in: &entryBytes, at: 0)
    // Memory must not be newer than the disk: a failed write is made again by the next claim.
    try storage.replaceTable(
      [UInt8](repeating: 0, count: 8), with: entryBytes,
      at: state.tableOffset + UInt64(block) * 8)
    state.table[block] = entry.rawValue
    state.keep(bytes, block: block)
  }

  /// Moves the refcount table to a larger place, right behind the clusters that it can count now.
  func growTable(
    _ state: inout AllocatorState, _ isInUse: (Range<UInt64>) -> Bool
  ) throws(ImageError) {
    let perBlock = UInt64(geometry.refcountsPerBlock)
    let perCluster = geometry.clusterSize / 8
    let start = UInt64(state.table.count) * perBlock
    // New blocks count themselves and the new table.
    var tableClusters = state.table.count * 2 / perCluster + 1
    var blocks = 1
    while UInt64(blocks) * perBlock < UInt64(blocks + tableClusters) {
      blocks += 1
      tableClusters = max(tableClusters, (state.table.count + blocks) / perCluster + 1)
    }
    guard tableClusters * geometry.clusterSize <= Geometry.maximumRefcountTableBytes else {
      throw .tablesFull(path: path)
    }
    try checkUnused(start..<start + UInt64(blocks + tableClusters), state, isInUse)
    var table = state.table
    table.append(contentsOf: repeatElement(0, count: tableClusters * perCluster - table.count))
    let clusterBits = UInt64(geometry.clusterBits)
    for number in 0..<blocks {
      table[state.table.count + number] = (start + UInt64(number)) << clusterBits
      var bytes = [UInt8](repeating: 0, count: geometry.clusterSize)
      let counted = min(
        Int(perBlock), blocks + tableClusters - number * Int(perBlock))
      for index in 0..<max(0, counted) {
        RefcountBlock.set(1, in: &bytes, index: index, order: geometry.refcountOrder)
      }
      try write(bytes, at: (start + UInt64(number)) << clusterBits)
    }
    var tableBytes = [UInt8](repeating: 0, count: tableClusters * geometry.clusterSize)
    for (index, entry) in table.enumerated() {
      BigEndian.store(entry, in: &tableBytes, at: index * 8)
    }
    let tableOffset = (start + UInt64(blocks)) << clusterBits
    var fields = [UInt8](repeating: 0, count: 12)
    BigEndian.store(tableOffset, in: &fields, at: 0)
    BigEndian.store(UInt32(tableClusters), in: &fields, at: 8)
    // Order: blocks and table; then the header, whose two fields lie in one sector; only then may the
    // old table be claimed.
    try write(tableBytes, at: tableOffset)
    try flush()
    try storage.replaceTable(try read(fields.count, at: 48), with: fields, at: 48)
    try flush()
    let old = state.tableOffset >> clusterBits
    let oldClusters = UInt64(state.table.count / perCluster)
    state.table = table
    state.tableOffset = tableOffset
    // Counted, and nobody's: the next claim takes it, with no write that could fail.
    state.returned.append(old..<old + oldClusters)
  }

  // MARK: - Refcounts

  private func refcount(_ state: inout AllocatorState, _ index: UInt64) throws(ImageError) -> UInt64
  {
    try loadTable(&state)
    let perBlock = UInt64(geometry.refcountsPerBlock)
    let block = Int(index / perBlock)
    guard block < state.table.count, state.table[block] != 0 else { return 0 }
    let order = geometry.refcountOrder
    return try withBlock(&state, block) { bytes in
      bytes.withBytes { RefcountBlock.value(in: $0, index: Int(index % perBlock), order: order) }
    }
  }

  /// Sets refcounts in memory and on disk. Their blocks exist.
  private func setRefcounts(
    _ state: inout AllocatorState, _ run: Range<UInt64>, to value: UInt64
  ) throws(ImageError) {
    let perBlock = UInt64(geometry.refcountsPerBlock)
    let order = geometry.refcountOrder
    var index = run.lowerBound
    while index < run.upperBound {
      let block = Int(index / perBlock)
      let end = min(run.upperBound, UInt64(block + 1) * perBlock)
      let first = Int(index % perBlock)
      let last = Int((end - 1) % perBlock)
      let blockOffset = try blockOffset(state, block)
      let byteRange = (first << order) / 8..<((last + 1) << order + 7) / 8
      let changed = try withBlock(&state, block) { bytes in
        for position in first...last {
          RefcountBlock.set(value, in: &bytes, index: position, order: order)
        }
        return Array(bytes[byteRange])
      }
      do { try write(changed, at: blockOffset + UInt64(byteRange.lowerBound)) } catch {
        // Memory must not be newer than the disk.
        state.forget(block: block)
        throw error
      }
      index = end
    }
  }

  private func withBlock<Result>(
    _ state: inout AllocatorState, _ block: Int, _ body: (inout [UInt8]) -> Result
  ) throws(ImageError) -> Result {
    if !state.has(block: block) {
      let offset = try blockOffset(state, block)
      if state.isShared(block: block, geometry) {
        throw .corrupt(path: path, reason: "refcount block \(block) lies on other metadata")
      }
      state.keep(try read(geometry.clusterSize, at: offset), block: block)
    }
    return state.withBlock(block, body)
  }

  /// Where a block is, which has to be there, as the table says it.
  private func blockOffset(_ state: AllocatorState, _ block: Int) throws(ImageError) -> UInt64 {
    let offset: UInt64?
    do {
      offset = try RefcountTableEntry(rawValue: state.table[block]).block(in: geometry)
    } catch { throw .format(path: path, error) }
    guard let offset else { throw .corrupt(path: path, reason: "no refcount block \(block)") }
    return offset
  }

  func loadTable(_ state: inout AllocatorState) throws(ImageError) {
    guard state.table.isEmpty else { return }
    let bytes = try read(state.tableClusters * geometry.clusterSize, at: state.tableOffset)
    state.table = (0..<bytes.count / 8).map { BigEndian.uint64(bytes, at: $0 * 8) }
  }

  // MARK: - Storage

  private func read(_ count: Int, at offset: UInt64) throws(ImageError) -> [UInt8] {
    try storage.readTable(count, at: offset)
  }

  func write(_ bytes: [UInt8], at offset: UInt64) throws(ImageError) {
    try storage.writeTable(bytes, at: offset)
  }

  func flush() throws(ImageError) {
    try onStorage { () throws(StorageError) in try storage.flush() }
  }
}
