// A run of more clusters than one refcount block counts, behind all that has a block. Its blocks come
// first, and count themselves and the run:
//
//     |0 1 2 run ......|run ............|run .....       |
//      counted by 0     by 1             by 2
//
//     1  the blocks
//     2  sync
//     3  the entry of block 0, which counts the places of all others, or of the first ones
//     4  sync
//     5  the entries of the blocks that are counted by those that have one; sync; and again
//
// A crash in between leaves blocks and a run that are counted and not used: a leak.

internal import HostSystem
internal import Qcow2Format

extension ClusterAllocator {
  /// Gives `count` neighbouring clusters whose refcounts are one, as many as are wanted.
  func claimLongRun(
    of count: Int, isInUse: (Range<UInt64>) -> Bool
  ) throws(ImageError) -> Range<UInt64> {
    try change { state throws(ImageError) in
      try loadTable(&state)
      let perBlock = geometry.refcountsPerBlock
      // Each block has room for itself and so many others.
      let blocks = (count + perBlock - 2) / (perBlock - 1)
      var first = Self.endOfBlocks(state)
      while first + blocks > state.table.count {
        try growTable(&state, isInUse)
        first = Self.endOfBlocks(state)
      }
      let start = UInt64(first) * UInt64(perBlock)
      let end = start + UInt64(blocks + count)
      guard end <= Self.clusterLimit(geometry) else { throw .tablesFull(path: path) }
      try checkUnused(start..<end, state, isInUse)
      var entries: [UInt64] = []
      for number in 0..<blocks {
        var bytes = [UInt8](repeating: 0, count: geometry.clusterSize)
        for index in 0..<min(perBlock, blocks + count - number * perBlock) {
          RefcountBlock.set(1, in: &bytes, index: index, order: geometry.refcountOrder)
        }
        let offset = (start + UInt64(number)) << UInt64(geometry.clusterBits)
        try write(bytes, at: offset)
        entries.append(RefcountTableEntry(blockOffset: offset).rawValue)
      }
      // Order: blocks, then the entries that point to them, and none whose block is not counted by one that
      // the disk has; only then whatever points to the run.
      try flush()
      var level = 0..<1
      while !level.isEmpty {
        let places = first + level.lowerBound..<first + level.upperBound
        try storage.replaceEntries(
          Array(state.table[places]), with: Array(entries[level]),
          at: state.tableOffset + UInt64(places.lowerBound) * 8)
        state.table.replaceSubrange(places, with: entries[level])
        try flush()
        level = level.upperBound..<max(level.upperBound, min(blocks, level.upperBound * perBlock))
      }
      return start + UInt64(blocks)..<end
    }
  }

  /// The first entry of the refcount table behind those that have a block.
  private static func endOfBlocks(_ state: AllocatorState) -> Int {
    (state.table.lastIndex { $0 != 0 } ?? -1) + 1
  }

  /// Entries of L1 and L2 tables hold offsets below 2^56.
  static func clusterLimit(_ geometry: Geometry) -> UInt64 {
    (1 << 56) >> UInt64(geometry.clusterBits)
  }
}
