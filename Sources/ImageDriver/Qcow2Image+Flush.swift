// Making durable, in order.
//
//     1  copies of the changed slices and L1 sectors are taken: their data was written before
//     2  sync           data, refcounts and new tables are on disk
//     3  write slices
//     4  sync           entries point only to what 2 made durable
//     5  write L1       only if it changed; its tables are durable since 2 and 4
//     6  sync
//     7  write entries of internal snapshots, if a stream fills some; then sync
//
// Clusters that lost a reference before 1 are free on disk after 6. They are not counted down before,
// and not handed out before `releaseFreed()`, since a reader may still be on its way to them.
//
// Given up: a crash between 2 and 6 leaks what was new.

internal import BlockIO
internal import HostSystem
internal import Qcow2Format

extension Qcow2Image {
  package func flush() throws(ImageError) {
    if isReadOnly { return }
    try flushes.run { () throws(ImageError) in try flushOnce() }
  }

  private func flushOnce() throws(ImageError) {
    let work = state.withLock { $0.takeDirty() }
    do {
      try sync()
      if !work.slices.isEmpty {
        // Order: after the data and refcounts that the entries point to.
        for slice in work.slices {
          try storage.writeEntries(slice.words, at: slice.offset)
        }
        try sync()
      }
      if !work.l1Sectors.isEmpty {
        // Order: after the L2 tables that the entries point to.
        for sector in work.l1Sectors {
          try storage.writeEntries(
            sector.entries, at: header.l1TableOffset + UInt64(sector.index * 512))
        }
        try sync()
      }
      if !work.snapshotEntries.isEmpty {
        // Order: after data, refcounts and new tables, and after the active disk has left a table that
        // is written to here.
        for run in work.snapshotEntries.keys.sorted().runs(by: 8) {
          let entries = stride(from: run.lowerBound, to: run.upperBound, by: 8).map {
            work.snapshotEntries[$0] ?? 0
          }
          try storage.writeEntries(entries, at: run.lowerBound)
        }
        try sync()
      }
    } catch {
      state.change { $0.endWriting(work, isOnDisk: false) }
      throw error
    }
    state.change { $0.endWriting(work, isOnDisk: true) }
  }

  /// Makes durable what was written to the image and to its data file.
  func sync() throws(ImageError) {
    try onStorage { () throws(StorageError) in
      if hasOwnDataFile { try data.flush() }
      try storage.flush()
    }
  }

  package func releaseFreed() throws(ImageError) {
    let freed = state.withLock { state in
      let freed = state.freed
      state.freed = []
      return freed
    }
    if freed.isEmpty { return }
    let unused: [UInt64]
    do { unused = try allocator.release(freed.map(\.index)) } catch { throw noted(error) }
    // The host gets the space back; best effort, since the refcount is what counts.
    let data = Set(freed.lazy.filter(\.isData).map(\.index))
    for run in unused.filter(data.contains).sorted().runs(by: 1) {
      do {
        try storage.discard(
          at: HostOffset(run.lowerBound << UInt64(geometry.clusterBits)),
          length: UInt64(run.count) << UInt64(geometry.clusterBits))
      } catch {
        // The clusters stay allocated on the host until they are used again.
        return
      }
    }
  }

  package func setBacking(_ reference: BackingReference?) throws(ImageError) {
    try prepareToWrite()
    try flush()
    // The sector holds the dirty and the corrupt bit as well.
    try marks.withHeader { () throws(ImageError) in
      let cluster = try ImageHeader.firstCluster(of: storage)
      let rewrite: BackingRewrite
      do throws(FormatError) {
        // The array outlives the call.
        rewrite = try unsafe ImageHeader.backingRewrite(
          firstCluster: cluster.span.bytes, backingFile: reference?.name,
          backingFormat: reference?.format)
      } catch { throw .format(path: path, error) }
      // Order: what the new header refers to lies where the old one has nothing; then the sector that
      // flips from one to the other; each is durable before the next.
      for piece in rewrite.preparation {
        try storage.writeTable(piece.bytes, at: UInt64(piece.offset))
      }
      try sync()
      try storage.replaceTable(Array(cluster[..<rewrite.flip.count]), with: rewrite.flip, at: 0)
      try sync()
    }
    keepBacking(reference)
  }

  package func close() throws(ImageError) {
    if isReadOnly { return }
    try flush()
    // Nothing more is counted down by tables that cannot be trusted.
    if marks.corruption != nil { return }
    try releaseFreed()
    try storeBitmaps()
    // Order: nothing points to what was claimed ahead, so it may be counted down.
    try allocator.close()
    try sync()
    // Order: the refcounts are true and durable; nothing is ahead any more.
    try marks.clearDirty()
  }
}

extension MetadataState {
  /// What one flush writes.
  struct FlushWork: Sendable {
    var slices: [(slice: UInt64, offset: UInt64, words: [UInt64])] = []
    var l1Sectors: [(index: Int, entries: [UInt64])] = []
    var dropped: [HostCluster] = []
    var snapshotEntries: [UInt64: UInt64] = [:]
  }

  /// Changes an L1 entry in memory.
  mutating func setL1(_ index: Int, to value: UInt64) {
    l1[index] = value
    dirtyL1Sectors.insert(index / 64)
  }

  /// Copies all that is newer than the disk.
  mutating func takeDirty() -> FlushWork {
    var work = FlushWork()
    for (slice, words) in cache.takeDirty() {
      let first = slice * UInt64(clustersPerSlice)
      let table = L1Entry(rawValue: l1[l1Index(of: first)]).tableOffset
      precondition(table != 0, "a changed slice has no table")
      work.slices.append((slice, sliceOffset(slice, table: table), words))
    }
    for sector in dirtyL1Sectors.sorted() {
      work.l1Sectors.append((sector, Array(l1[sector * 64..<min(sector * 64 + 64, l1.count)])))
    }
    dirtyL1Sectors = []
    work.dropped = dropped
    dropped = []
    // They stay for lookups until they are on disk.
    work.snapshotEntries = snapshotEntries
    return work
  }

  /// Ends a flush: its dropped clusters are free now, or, after a failure, all is as before.
  mutating func endWriting(_ work: FlushWork, isOnDisk: Bool) {
    cache.endWriting(work.slices.map(\.slice), isOnDisk: isOnDisk)
    if isOnDisk {
      freed += work.dropped
      for (place, value) in work.snapshotEntries where snapshotEntries[place] == value {
        snapshotEntries[place] = nil
      }
    } else {
      dropped = work.dropped + dropped
      for sector in work.l1Sectors { dirtyL1Sectors.insert(sector.index) }
    }
  }
}

extension [UInt64] {
  /// The runs of numbers that follow each other at a distance in a sorted array.
  fileprivate func runs(by distance: UInt64) -> [Range<UInt64>] {
    var runs: [Range<UInt64>] = []
    for number in self {
      if let last = runs.last, last.upperBound == number {
        runs[runs.count - 1] = last.lowerBound..<number + distance
      } else {
        runs.append(number..<number + distance)
      }
    }
    return runs
  }
}
