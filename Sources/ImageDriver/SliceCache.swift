// L2 entries in memory, in slices of at most 4 KiB.
//
// A whole L2 table can be 2 MiB; a slice is what one page holds, so that a small cache covers many
// places and a flush writes little. Slices are numbered by the guest clusters that they map, hence a
// table that moves on disk moves nothing here.
//
// A slot may be thrown out only if it is clean, unpinned and not being written:
//
//     clean -- change --> dirty -- flush takes a copy --> writing -- written --> clean
//                           ^------------ change ------------'  (dirty and writing at once)
//
// If no slot may go, the caller flushes first. The words of all slots lie in one array: a lookup
// touches no object and allocates nothing.

/// The L2 entries of the active image that are in memory. Used under the image's lock.
struct SliceCache {
  /// Words of 8 bytes in one slice; an entry has one or two.
  let wordsPerSlice: Int
  /// Slots that the cache may have.
  let capacity: Int
  private var words: [UInt64] = []
  private var slots: [Slot] = []
  private var index: [UInt64: Int] = [:]
  private var clockHand = 0
  /// Slots whose content is newer than the disk.
  private(set) var dirtyCount = 0

  private struct Slot {
    var slice: UInt64
    var pins = 0
    var isDirty = false
    var isBeingWritten = false
    var wasUsed = true
  }

  /// A cache of about `byteCount` bytes, with room for two slices at least.
  init(wordsPerSlice: Int, byteCount: Int) {
    self.wordsPerSlice = wordsPerSlice
    capacity = max(2, byteCount / (wordsPerSlice * 8))
  }

  /// The slot of a slice, nil if it is not in memory.
  mutating func slot(of slice: UInt64) -> Int? {
    guard let slot = index[slice] else { return nil }
    slots[slot].wasUsed = true
    return slot
  }

  /// The word at `position` of a slot.
  func word(_ slot: Int, _ position: Int) -> UInt64 { words[slot * wordsPerSlice + position] }

  /// Changes a word and marks its slot as newer than the disk.
  mutating func setWord(_ slot: Int, _ position: Int, to value: UInt64) {
    words[slot * wordsPerSlice + position] = value
    if !slots[slot].isDirty {
      slots[slot].isDirty = true
      dirtyCount += 1
    }
  }

  /// Keeps a slot in memory until `unpin`.
  mutating func pin(_ slot: Int) { slots[slot].pins += 1 }

  /// Ends one `pin`.
  mutating func unpin(_ slot: Int) {
    precondition(slots[slot].pins > 0, "a slice was unpinned more often than pinned")
    slots[slot].pins -= 1
  }

  /// Puts a slice that was read into a slot; false if every slot must stay: flush and try again.
  mutating func insert(_ slice: UInt64, _ content: [UInt64]) -> Bool {
    precondition(content.count == wordsPerSlice && index[slice] == nil)
    guard let slot = freeSlot() else { return false }
    slots[slot] = Slot(slice: slice)
    index[slice] = slot
    let start = slot * wordsPerSlice
    for position in 0..<wordsPerSlice { words[start + position] = content[position] }
    return true
  }

  /// Copies the dirty slices, which count as clean and as being written from now on.
  mutating func takeDirty() -> [(slice: UInt64, words: [UInt64])] {
    var taken: [(slice: UInt64, words: [UInt64])] = []
    guard dirtyCount > 0 else { return taken }
    taken.reserveCapacity(dirtyCount)
    for slot in slots.indices where slots[slot].isDirty {
      let start = slot * wordsPerSlice
      taken.append((slots[slot].slice, Array(words[start..<start + wordsPerSlice])))
      slots[slot].isDirty = false
      slots[slot].isBeingWritten = true
    }
    dirtyCount = 0
    return taken
  }

  /// Ends what `takeDirty` began; after a failure the slices are dirty again.
  mutating func endWriting(_ slices: [UInt64], isOnDisk: Bool) {
    for slice in slices {
      guard let slot = index[slice] else { preconditionFailure("a slice left while written") }
      slots[slot].isBeingWritten = false
      if !isOnDisk, !slots[slot].isDirty {
        slots[slot].isDirty = true
        dirtyCount += 1
      }
    }
  }

  /// Throws out everything, unless something is newer than the disk or in use.
  mutating func removeAll() {
    if dirtyCount > 0 || slots.contains(where: { $0.pins > 0 || $0.isBeingWritten }) { return }
    words = []
    slots = []
    index = [:]
    clockHand = 0
  }

  private mutating func freeSlot() -> Int? {
    if slots.count < capacity {
      slots.append(Slot(slice: 0))
      words.append(contentsOf: repeatElement(0, count: wordsPerSlice))
      return slots.count - 1
    }
    // Two rounds: the first may only take marks of use away.
    for _ in 0..<2 * slots.count {
      clockHand = (clockHand + 1) % slots.count
      let slot = slots[clockHand]
      if slot.isDirty || slot.isBeingWritten || slot.pins > 0 { continue }
      if slot.wasUsed {
        slots[clockHand].wasUsed = false
        continue
      }
      index[slot.slice] = nil
      return clockHand
    }
    return nil
  }
}
