// Numbers that every request adds to and hardly anybody asks for.
//
// One number that all threads add to is a cache line that all processors fight for. So each number is
// there once for every one of a few shards, and a thread adds to its own shard's, which lies in cache
// lines of its own; who asks adds the shards up. Threads that share a shard are few, and their numbers
// are atomic all the same, so none gets lost.

internal import CHost
internal import Glibc
internal import Synchronization

/// Numbers, all zero at first, that any thread may add to at any time.
@safe package final class ShardedCounters: @unchecked Sendable {
  // Sendable: the words are atomic, and their address never changes.
  private static let shardCount = 16
  /// In words: two cache lines, which some processors fetch together.
  private static let alignment = 16

  private let count: Int
  private let wordsPerShard: Int
  private let words: UnsafeMutablePointer<Atomic<UInt64>>

  /// So many numbers.
  package init(count: Int) {
    precondition(count > 0, "no number to count")
    self.count = count
    wordsPerShard = (count + Self.alignment - 1) / Self.alignment * Self.alignment
    let bytes = Self.shardCount * wordsPerShard * MemoryLayout<Atomic<UInt64>>.stride
    // Alive: the memory belongs to this object and goes in deinit.
    guard let memory = unsafe aligned_alloc(Self.alignment * 8, bytes) else {
      preconditionFailure("no memory for counters")
    }
    // In bounds: as many bytes as were asked for.
    unsafe memset(memory, 0, bytes)
    // An atomic word has the layout of a word, so zeroed memory holds words of zero.
    unsafe words = memory.bindMemory(
      to: Atomic<UInt64>.self, capacity: Self.shardCount * wordsPerShard)
  }

  deinit {
    // Alive until here: the last reference is gone.
    unsafe free(words)
  }

  // Relaxed throughout: nothing is published through the numbers.

  /// Adds to a number.
  package func add(_ value: UInt64, to index: Int) {
    let place = place(index)
    // In bounds: the place is one of the words.
    unsafe words[place].wrappingAdd(value, ordering: .relaxed)
  }

  /// Makes a number at least as large; numbers that are raised are asked for with `greatest`.
  package func raise(_ index: Int, to value: UInt64) {
    let place = place(index)
    // In bounds: as above. It is written only when it changes.
    if unsafe words[place].load(ordering: .relaxed) < value {
      // In bounds: as above.
      unsafe words[place].max(value, ordering: .relaxed)
    }
  }

  /// The sum of what was added to a number.
  package func total(_ index: Int) -> UInt64 {
    shards(index).reduce(0) { $0 &+ $1 }
  }

  /// The greatest value that a number was raised to.
  package func greatest(_ index: Int) -> UInt64 {
    shards(index).reduce(0, max)
  }

  private func shards(_ index: Int) -> some Sequence<UInt64> {
    precondition(index >= 0 && index < count, "a number that is not there")
    return (0..<Self.shardCount).lazy.map { [self] shard in
      // In bounds: the index is one of the shard's words.
      unsafe words[shard * wordsPerShard + index].load(ordering: .relaxed)
    }
  }

  /// Where a number of the calling thread is.
  private func place(_ index: Int) -> Int {
    precondition(index >= 0 && index < count, "a number that is not there")
    return Int(chainfs_thread_index()) % Self.shardCount * wordsPerShard + index
  }
}
