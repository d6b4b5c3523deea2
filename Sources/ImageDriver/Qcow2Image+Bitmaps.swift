// Storing the notes of BitmapTracker. All of it happens while the bitmaps are marked as in use:
//
//     1  for each cluster of bits with new notes: old bits and notes together in a new cluster, or none
//        if all are set; a table that has to be longer is copied to new clusters
//     2  sync
//     3  the table's entries, or where the new table is
//     4  sync
//     -- a growing disk gets its new size here ------------------------------------------------------
//     5  the table's size, and in_use taken back, in one word
//     6  sync
//     7  clusters that were replaced are free, and those of a table that is longer than the disk needs:
//        a growth that failed after 3 has left it
//
// A crash before 5 leaves bitmaps in use, after it true ones; in between at worst a leak. What 1 claims
// is pointed to only after 2, so nothing points to a cluster that is not counted. A failure before 5
// leaves memory as it was: the notes are stored by the next attempt, over whatever the disk holds.

internal import BlockIO
internal import HostSystem
internal import Qcow2Format

extension Qcow2Image {
  /// Stores all notes and declares the bitmaps true. The guest's own changes are on their way to disk
  /// or durable; a bit too many does no harm.
  func storeBitmaps() throws(ImageError) {
    try prepareBitmaps(for: virtualSize)
    try finishBitmaps(for: virtualSize)
  }

  /// Steps 1 to 4, with tables for a disk of `size` bytes.
  ///
  /// Bitmaps whose tables have to be longer are marked as in use, also those that note nothing.
  func prepareBitmaps(for size: UInt64) throws(ImageError) {
    guard let bitmaps else { return }
    // Lock: bitmaps, then the allocator.
    try bitmaps.state.withLock { state throws(ImageError) in
      let longer = state.entries.indices.filter { index in
        !state.entries[index].flags.contains(.inUse)
          && tableSize(of: state.entries[index], for: size) > state.entries[index].tableSize
      }
      // Order: in_use is durable before the size of the disk and that of the table can differ.
      if !longer.isEmpty { try bitmaps.mark(longer, &state) }
      var stores: [BitmapStore] = []
      do throws(ImageError) {
        for index in state.marked.sorted() {
          stores.append(try write(index, of: bitmaps, state, for: size))
        }
        try sync()
      } catch {
        for store in stores { store.claimed.forEach(allocator.giveBack) }
        throw error
      }
      // Order: bits, tables and refcounts, then the entries that point to them.
      for store in stores { try point(to: store, of: bitmaps, &state) }
      try sync()
      for store in stores {
        state.tables[store.index] = store.table
        state.dropped += store.dropped
      }
    }
  }

  /// Steps 5 to 7, once the disk has `size` bytes.
  func finishBitmaps(for size: UInt64) throws(ImageError) {
    guard let bitmaps else { return }
    try bitmaps.state.withLock { state throws(ImageError) in
      if state.marked.isEmpty { return }
      // If one of the writes fails, the next change marks all of them again.
      bitmaps.end()
      for index in state.marked.sorted() {
        let old = state.entries[index].sizeAndFlags
        state.entries[index].tableSize = Int(tableSize(of: state.entries[index], for: size))
        shorten(index, &state)
        state.entries[index].flags.remove(.inUse)
        // Order: the bits are on disk and complete; only then they are called true.
        try bitmaps.writeSizeAndFlags(of: state.entries[index], replacing: old)
      }
      try sync()
      state.marked = []
      for recorder in bitmaps.recorders { recorder.bits.clear() }
      // Order: nothing on disk points to what was replaced.
      let dropped = state.dropped
      state.dropped = []
      _ = try allocator.release(dropped)
    }
  }

  /// Throws if the bitmaps do not let the disk grow to `size`, as QEMU does.
  func checkBitmaps(for size: UInt64) throws(ImageError) {
    guard let bitmaps else { return }
    try bitmaps.state.withLock { state throws(ImageError) in
      for (index, entry) in state.entries.enumerated() {
        if entry.flags.contains(.inUse), !state.marked.contains(index) {
          throw .bitmapInTheWay(path: path, name: entry.name, reason: "it is inconsistent")
        }
        guard entry.isUsable else {
          throw .bitmapInTheWay(path: path, name: entry.name, reason: "it has unknown extra data")
        }
        let byteCount = tableSize(of: entry, for: size) << UInt64(geometry.clusterBits)
        guard byteCount <= UInt64(BitmapEntry.maximumBitBytes) else {
          throw .bitmapInTheWay(path: path, name: entry.name, reason: "it would be too large")
        }
      }
    }
  }

  /// Makes changes that are not the guest's, and that its bitmaps do not note.
  ///
  /// No other call may be in progress.
  package func withoutRecording<Failure: Error>(
    _ body: () throws(Failure) -> Void
  ) throws(Failure) {
    guard let bitmaps else { return try body() }
    try bitmaps.withoutRecording(body)
  }

  private func tableSize(of entry: BitmapEntry, for size: UInt64) -> UInt64 {
    BitmapEntry.tableSize(
      for: size, granularityBits: entry.granularityBits, clusterSize: clusterSize)
  }

  // MARK: - One bitmap

  /// What steps 1 and 3 have to know of one bitmap.
  private struct BitmapStore {
    var index: Int
    /// The table as it will be.
    var table: [UInt64]
    /// The entries that differ from those on disk.
    var changed: Range<Int>?
    /// Where the table is copied to; nil if it stays where it is.
    var newTable: UInt64?
    var claimed: [Range<UInt64>] = []
    var dropped: [UInt64] = []
  }

  /// Step 1: writes bits and tables to places that nothing points to.
  private func write(
    _ index: Int, of bitmaps: BitmapTracker, _ state: BitmapTracker.State, for size: UInt64
  ) throws(ImageError) -> BitmapStore {
    let entry = state.entries[index]
    let old: [UInt64]
    if let table = state.tables[index] {
      old = table
    } else {
      old = try BitmapDirectory.table(of: entry, geometry, in: storage)
    }
    var store = BitmapStore(index: index, table: old)
    do throws(ImageError) {
      if let recorder = bitmaps.recorders.first(where: { $0.index == index }) {
        for position in old.indices { try merge(recorder.bits, position, &store) }
      }
      let added = Int(tableSize(of: entry, for: size)) - old.count
      if added > 0 {
        store.table += repeatElement(BitmapTableEntry.zeroes.rawValue, count: added)
        try lengthen(entry, old.count, &store)
      }
    } catch {
      store.claimed.forEach(allocator.giveBack)
      throw error
    }
    return store
  }

  /// Lays notes over one cluster of bits.
  private func merge(
    _ notes: AtomicBits, _ position: Int, _ store: inout BitmapStore
  ) throws(ImageError) {
    let start = position * clusterSize
    let entry = BitmapTableEntry(rawValue: store.table[position])
    if entry == .ones || notes.isClear(bytesFrom: start, count: clusterSize) { return }
    let old: UInt64?
    do { old = try entry.cluster(in: geometry) } catch { throw .format(path: path, error) }
    var bytes = notes.bytes(from: start, count: clusterSize)
    if let old {
      let stored = try storage.readTable(clusterSize, at: old)
      for place in bytes.indices { bytes[place] |= stored[place] }
      if bytes == stored { return }
      store.dropped.append(geometry.clusterIndex(containing: old))
    }
    if bytes.allSatisfy({ $0 == 0xff }) {
      store.table[position] = BitmapTableEntry.ones.rawValue
    } else {
      let run = try claim(upTo: 1)
      store.claimed.append(run)
      let offset = run.lowerBound << UInt64(geometry.clusterBits)
      try storage.writeTable(bytes, at: offset)
      store.table[position] = BitmapTableEntry(offset: offset).rawValue
    }
    store.changed = (store.changed?.lowerBound ?? position)..<position + 1
  }

  /// Makes room for a longer table: the rest of its last cluster, or new clusters for all of it.
  private func lengthen(
    _ entry: BitmapEntry, _ oldCount: Int, _ store: inout BitmapStore
  ) throws(ImageError) {
    let has = clusters(ofTableAt: entry.tableOffset, entries: oldCount)
    let wants = clusters(ofTableAt: entry.tableOffset, entries: store.table.count).count
    if has.count == wants {
      // Nobody else uses the rest of the cluster, but nobody promised that it is zero.
      return try storage.writeEntries(
        store.table[oldCount...], at: entry.tableOffset + UInt64(oldCount * 8))
    }
    let run = try claimRun(of: wants)
    store.claimed.append(run)
    let offset = run.lowerBound << UInt64(geometry.clusterBits)
    let padding = [UInt64](repeating: 0, count: wants * clusterSize / 8 - store.table.count)
    try storage.writeEntries(store.table + padding, at: offset)
    store.newTable = offset
    store.dropped += has
  }

  /// Drops what a table has behind the size that its entry says; nothing but zeroes is noted there.
  private func shorten(_ index: Int, _ state: inout BitmapTracker.State) {
    let entry = state.entries[index]
    guard let table = state.tables[index], table.count > entry.tableSize else { return }
    let needed = clusters(ofTableAt: entry.tableOffset, entries: entry.tableSize)
    let has = clusters(ofTableAt: entry.tableOffset, entries: table.count)
    state.dropped += needed.upperBound..<has.upperBound
    state.tables[index] = Array(table.prefix(entry.tableSize))
  }

  /// Step 3: makes the disk point to what step 1 wrote.
  private func point(
    to store: BitmapStore, of bitmaps: BitmapTracker, _ state: inout BitmapTracker.State
  ) throws(ImageError) {
    let entry = state.entries[store.index]
    if let offset = store.newTable {
      var moved = entry
      moved.tableOffset = offset
      try bitmaps.writeTableOffset(of: moved, replacing: entry.tableOffset)
      state.entries[store.index] = moved
    } else if let changed = store.changed, let old = state.tables[store.index] {
      try storage.replaceEntries(
        Array(old[changed]), with: Array(store.table[changed]),
        at: entry.tableOffset + UInt64(changed.lowerBound * 8))
    }
  }
}
