// A lock for something that everybody uses and hardly anybody changes.
//
// One reader count would be one cache line that all processors fight for. The gate has a reader lock
// for each of a few shards; a thread takes its own shard's, whoever changes things takes all of them,
// in order, so two of those cannot meet crosswise. The locks prefer writers: a stream of readers
// cannot hold a snapshot off. That makes them not recursive: a thread that is inside must not enter
// again, since a writer waiting between the two would stop it for good.

internal import CHost
internal import Glibc

/// A reader-writer lock whose shared side scales with the number of processors.
@safe package final class SharedGate: @unchecked Sendable {
  // Sendable: the locks are made for many threads, and the addresses never change.
  private static let shardCount = 16
  private static let stride = 128
  private let shards: UnsafeMutableRawPointer

  /// An open gate.
  package init() {
    precondition(MemoryLayout<pthread_rwlock_t>.size <= Self.stride)
    // Alive: the memory belongs to this object and goes in deinit.
    unsafe shards = .allocate(byteCount: Self.shardCount * Self.stride, alignment: Self.stride)
    for index in 0..<Self.shardCount {
      // In bounds: one lock a stride, shardCount strides.
      let lock = unsafe (shards + index * Self.stride).initializeMemory(
        as: pthread_rwlock_t.self, to: pthread_rwlock_t())
      let status = unsafe chainfs_gate_init(lock)
      precondition(status == 0, "no memory for a lock")
    }
  }

  deinit {
    for index in 0..<Self.shardCount {
      // Alive until here: the last reference is gone, so no thread is inside.
      unsafe pthread_rwlock_destroy(shard(index))
    }
    unsafe shards.deallocate()
  }

  /// Runs `body` beside other shared ones, never beside an exclusive one.
  package func shared<Result: ~Copyable, Failure: Error>(
    _ body: () throws(Failure) -> Result
  ) throws(Failure) -> Result {
    enter()
    defer { leave() }
    return try body()
  }

  /// Enters beside other shared ones, for a body that cannot be a closure. The same thread has to leave.
  package func enter() {
    // Alive: owned by this object; so below.
    let status = unsafe pthread_rwlock_rdlock(ownShard)
    precondition(status == 0, "a gate was entered twice by one thread")
  }

  /// Enters unless somebody is alone in the gate, or wants to be. False: the thread is not inside.
  package func tryEnter() -> Bool {
    unsafe pthread_rwlock_tryrdlock(ownShard) == 0
  }

  /// Leaves what this thread has entered.
  package func leave() {
    // Alive: owned by this object; this thread holds it.
    unsafe pthread_rwlock_unlock(ownShard)
  }

  /// Runs `body` alone, once everybody who was inside has left.
  package func exclusive<Result: ~Copyable, Failure: Error>(
    _ body: () throws(Failure) -> Result
  ) throws(Failure) -> Result {
    for index in 0..<Self.shardCount {
      // In bounds: the loop's own. Always in this order, see above.
      let status = unsafe pthread_rwlock_wrlock(shard(index))
      precondition(status == 0, "a gate was entered twice by one thread")
    }
    defer {
      for index in 0..<Self.shardCount {
        // Alive: owned by this object; this thread holds it.
        unsafe pthread_rwlock_unlock(shard(index))
      }
    }
    return try body()
  }

  /// Runs `body` alone in all of `gates`, which are taken in the order given.
  ///
  /// Whoever takes several has to take them in the order that everybody uses, each once.
  package static func exclusive<Result: ~Copyable, Failure: Error>(
    _ gates: ArraySlice<SharedGate>, _ body: () throws(Failure) -> Result
  ) throws(Failure) -> Result {
    guard let first = gates.first else { return try body() }
    return try first.exclusive { () throws(Failure) -> Result in
      try exclusive(gates.dropFirst(), body)
    }
  }

  private var ownShard: UnsafeMutablePointer<pthread_rwlock_t> {
    // In bounds: the index is taken modulo the count; it stays the thread's own.
    unsafe shard(Int(chainfs_thread_index()) % Self.shardCount)
  }

  private func shard(_ index: Int) -> UnsafeMutablePointer<pthread_rwlock_t> {
    // In bounds: all callers stay below shardCount.
    unsafe (shards + index * Self.stride).assumingMemoryBound(to: pthread_rwlock_t.self)
  }
}
