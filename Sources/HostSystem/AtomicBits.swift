// Many bits that threads set without a lock, for notes of what has changed.
//
// The memory comes zeroed from the host and takes room only where a bit was set. A bit that is set
// already is only read, so that writers of the same place do not fight for its cache line.

internal import Glibc
internal import Synchronization

/// A fixed number of bits, all clear at first, that any thread may set at any time.
@safe package final class AtomicBits: @unchecked Sendable {
  // Sendable: the words are atomic, and their address never changes.
  /// How many bits there are.
  package let count: Int
  private let words: UnsafeMutablePointer<Atomic<UInt64>>
  private let wordCount: Int

  /// Clear bits; nil if the host has no memory for them.
  package init?(count: Int) {
    precondition(count >= 0, "a negative number of bits")
    self.count = count
    wordCount = count / 64 + 1
    // Alive: the memory belongs to this object and goes in deinit.
    guard let memory = unsafe calloc(wordCount, MemoryLayout<Atomic<UInt64>>.stride) else {
      return nil
    }
    // An atomic word has the layout of a word, so zeroed memory holds words of zero.
    unsafe words = memory.bindMemory(to: Atomic<UInt64>.self, capacity: wordCount)
  }

  deinit {
    // Alive until here: the last reference is gone.
    unsafe free(words)
  }

  /// Sets the bits of a range, which has to lie inside.
  ///
  /// Relaxed: whoever reads the bits has waited for all who set them by other means.
  package func set(_ range: ClosedRange<Int>) {
    precondition(range.lowerBound >= 0 && range.upperBound < count, "bits that are not there")
    let last = range.upperBound / 64
    for index in range.lowerBound / 64...last {
      var mask = UInt64.max
      if index == range.lowerBound / 64 { mask &= .max << UInt64(range.lowerBound % 64) }
      if index == last { mask &= .max >> UInt64(63 - range.upperBound % 64) }
      // In bounds: the range was checked against the count.
      if unsafe words[index].load(ordering: .relaxed) & mask != mask {
        // In bounds: as above.
        unsafe words[index].bitwiseOr(mask, ordering: .relaxed)
      }
    }
  }

  /// Whether no bit is set among the eight times `count` bits from bit `8 * start` on.
  ///
  /// `start` and `count` are multiples of eight; what lies behind the end counts as clear.
  package func isClear(bytesFrom start: Int, count: Int) -> Bool {
    for index in wordRange(start, count) {
      // In bounds: the range is cut at the end of the words.
      if unsafe words[index].load(ordering: .relaxed) != 0 { return false }
    }
    return true
  }

  /// The bits from bit `8 * start` on as `count` bytes, the first bit lowest in the first byte.
  ///
  /// `start` and `count` are multiples of eight; what lies behind the end is zero.
  package func bytes(from start: Int, count: Int) -> [UInt8] {
    var bytes = [UInt8](repeating: 0, count: count)
    for index in wordRange(start, count) {
      // In bounds: the range is cut at the end of the words.
      let word = unsafe words[index].load(ordering: .relaxed)
      if word == 0 { continue }
      for byte in 0..<8 {
        bytes[index * 8 - start + byte] = UInt8(truncatingIfNeeded: word >> UInt64(8 * byte))
      }
    }
    return bytes
  }

  /// Clears all bits. Nobody may set one meanwhile.
  package func clear() {
    for index in 0..<wordCount {
      // In bounds: the loop's own. Only what is set is written, so untouched memory stays so.
      if unsafe words[index].load(ordering: .relaxed) != 0 {
        // In bounds: as above.
        unsafe words[index].store(0, ordering: .relaxed)
      }
    }
  }

  private func wordRange(_ start: Int, _ count: Int) -> Range<Int> {
    precondition(start >= 0 && start % 8 == 0 && count >= 0 && count % 8 == 0, "not whole words")
    let first = min(start / 8, wordCount)
    return first..<min(first + count / 8, wordCount)
  }
}
