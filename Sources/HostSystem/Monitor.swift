// A value, the lock around it, and a way to wait for it to change.
//
// Nobody waits inside a closure: while a thread waits, others change the value, yet the compiler may
// keep parts of an `inout` argument in registers across a call. `wait` runs an attempt; an attempt
// that gives nil ends its access to the value, sleeps until somebody says that the value changed, and
// is made again.
//
//     change { $0.queue.append(item) }          // wakes all who wait
//     let item = wait { $0.queue.popFirst() }   // sleeps while the queue is empty
//
// It stands also where nobody waits, in place of the standard library's Mutex: the thread sanitizer
// knows POSIX's locks and not that one's futex, and that one knows a thread by an id that is wrong
// after a fork.
//
// Deadlines are on CLOCK_MONOTONIC, so setting the calendar moves none of them.

internal import CHost
internal import Glibc

/// A value that many threads share: one at a time inside, and able to wait for the others.
///
/// Not recursive: a closure must not enter the same monitor again.
@safe package final class Monitor<Value: ~Copyable>: @unchecked Sendable {
  // Sendable: the value is reached between lock and unlock only, its initial content is sent in, and
  // what closures give out is sent on.
  private let mutex: UnsafeMutablePointer<pthread_mutex_t>
  private let changed: UnsafeMutablePointer<pthread_cond_t>
  private let value: UnsafeMutablePointer<Value>

  /// Puts `initial` behind a lock.
  package init(_ initial: consuming sending Value) {
    // Alive: all three belong to this object and go in deinit. The kernel needs their addresses to
    // stay, which stored properties would not promise.
    unsafe mutex = .allocate(capacity: 1)
    unsafe mutex.initialize(to: pthread_mutex_t())
    unsafe changed = .allocate(capacity: 1)
    unsafe changed.initialize(to: pthread_cond_t())
    unsafe value = .allocate(capacity: 1)
    unsafe value.initialize(to: initial)
    let mutexStatus = unsafe pthread_mutex_init(mutex, nil)
    let conditionStatus = unsafe chainfs_condition_init(changed)
    precondition(mutexStatus == 0 && conditionStatus == 0, "no memory for a lock")
  }

  deinit {
    // Alive until here: the last reference is gone, so no thread is inside or waits.
    unsafe pthread_cond_destroy(changed)
    unsafe pthread_mutex_destroy(mutex)
    unsafe value.deinitialize(count: 1)
    unsafe value.deallocate()
    unsafe changed.deallocate()
    unsafe mutex.deallocate()
  }

  /// Runs `body` with the value, alone.
  package func withLock<Result: ~Copyable, Failure: Error>(
    _ body: (inout sending Value) throws(Failure) -> sending Result
  ) throws(Failure) -> sending Result {
    lock()
    defer { unlock() }
    // Alive: owned by this object; exclusive by the lock.
    return try unsafe body(&value.pointee)
  }

  /// Runs `body` with the value, alone, and then wakes all who wait, also when it throws.
  package func change<Result: ~Copyable, Failure: Error>(
    _ body: (inout sending Value) throws(Failure) -> sending Result
  ) throws(Failure) -> sending Result {
    lock()
    defer {
      // Alive: owned by this object.
      unsafe pthread_cond_broadcast(changed)
      unlock()
    }
    // Alive: owned by this object; exclusive by the lock.
    return try unsafe body(&value.pointee)
  }

  /// Makes `attempt` until it gives something; between attempts it sleeps until the value changes.
  ///
  /// With a deadline it gives nil once that has passed and a last attempt still gave nothing. What
  /// an attempt changes wakes nobody: call `notifyAll()` if others wait for it.
  package func wait<Result, Failure: Error>(
    until deadline: MonotonicTime? = nil,
    _ attempt: (inout sending Value) throws(Failure) -> sending Result?
  ) throws(Failure) -> sending Result? {
    lock()
    defer { unlock() }
    while true {
      // Alive: owned by this object; exclusive by the lock.
      if let result = try unsafe attempt(&value.pointee) { return result }
      if !sleep(until: deadline) {
        // Alive: as above. The change may have come together with the deadline.
        return try unsafe attempt(&value.pointee)
      }
    }
  }

  /// Sleeps as long as `condition` holds; gives false if it still held at the deadline.
  @discardableResult
  package func wait(
    until deadline: MonotonicTime? = nil, while condition: (borrowing Value) -> Bool
  ) -> Bool {
    lock()
    defer { unlock() }
    // Alive: owned by this object; exclusive by the lock.
    while unsafe condition(value.pointee) {
      // Alive: as above. The change may have come together with the deadline.
      if !sleep(until: deadline) { return unsafe !condition(value.pointee) }
    }
    return true
  }

  /// Wakes all who wait, so that they look again.
  package func notifyAll() {
    lock()
    // Alive: owned by this object.
    unsafe pthread_cond_broadcast(changed)
    unlock()
  }

  private func lock() {
    // Alive: owned by this object. A default mutex fails only when it is misused.
    let status = unsafe pthread_mutex_lock(mutex)
    precondition(status == 0, "a monitor's lock is broken")
  }

  private func unlock() {
    // Alive: owned by this object; this thread holds it.
    let status = unsafe pthread_mutex_unlock(mutex)
    precondition(status == 0, "a monitor's lock is broken")
  }

  /// Waits for a change; gives false if the deadline came first. Wakes may come for nothing.
  private func sleep(until deadline: MonotonicTime?) -> Bool {
    guard let deadline else {
      // Alive: owned by this object; this thread holds the mutex.
      unsafe pthread_cond_wait(changed, mutex)
      return true
    }
    var time = timespec()
    time.tv_sec = Int(deadline.nanoseconds / 1_000_000_000)
    time.tv_nsec = Int(deadline.nanoseconds % 1_000_000_000)
    // Alive: as above, and the time is this local.
    return unsafe pthread_cond_timedwait(changed, mutex, &time) != ETIMEDOUT
  }
}
