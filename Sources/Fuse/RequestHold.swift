internal import Glibc
internal import HostSystem
internal import Synchronization

// Requests that wait because whoever runs the file system said so.
//
//              stop                        go
//     open ----------> stopped, waiting --------> releasing, then open
//
// A request that is served is inside the gate, where a thread touches nothing but its own shard; so
// requests are counted without any place that all threads write to. It looks at one flag there, relaxed.
// A stop sets the flag and goes through the gate alone: then all who had entered have answered, and
// whoever enters later sees the flag. A request that finds the flag, or a stop in the gate, does not wait
// there, for its thread is one of the few that bring `go`. Its reply is parked with what it needs, and the
// thread goes back to the pool. So a client that waits can be interrupted, and has done nothing then.
//
// `go` serves what waits on its caller's thread, one after the other in order of arrival; what comes
// meanwhile is served beside it. A stop waits for the end of that.
//
// The end of the mount lets everything through, for good. What waits may be pages that the kernel has
// taken from a writer who believes them written, or a client's request that would fail for no reason of
// its own. Where the kernel has cut the connection, nobody is left to hear an answer: what waits has
// not been acknowledged, and is dropped.
//
// The bound. Reads keep no memory, writes a copy of their bytes. The kernel sends at most 64 requests of
// a mount that nobody waits for (SessionContext), and of those that somebody does, one write for a file
// at a time: 65 MiB. Should another kernel send more, what goes beyond the limit fails with EAGAIN, having
// done nothing: better than memory without end, or a thread that waits with the bytes in its hands.
//
// Given up: where the daemon's memory is limited (ServingMemory), these copies are none of what is held
// ready, so a stop in the middle of heavy writing may need memory when there is none.
//
// Lock: this gate is outside of all others; a request enters a disk's own inside of it.

/// A stop of requests, and those that wait for its end.
package final class RequestHold: Sendable {
  private struct Waiting {
    var reply: ParkedReply
    var byteCount: Int
    var serve: @Sendable (consuming OwedReply) -> Void
  }

  private struct State {
    var isStopped = false
    /// Somebody serves what waited.
    var isReleasing = false
    /// No stop any more.
    var hasEnded = false
    var lastNumber: UInt64 = 0
    /// By order of arrival.
    var waiting: [UInt64: Waiting] = [:]
    /// What waits or is about to.
    var count = 0
    var byteCount = 0
  }

  private enum Admission {
    case refused
    case served
    case waiting(UInt64)
  }

  private let byteLimit: Int
  private let countLimit: Int
  private let gate = SharedGate()
  /// As in the state, for the way of every request. Relaxed: the gate orders it, see above.
  private let isStopped = Atomic<Bool>(false)
  private let state = Monitor(State())

  /// Nothing is stopped. Writes of at most `byteLimit` bytes wait, and at most `countLimit` requests.
  package init(byteLimit: Int = 128 << 20, countLimit: Int = 1 << 16) {
    self.byteLimit = byteLimit
    self.countLimit = countLimit
  }

  /// Requests that come wait.
  package var isHolding: Bool { isStopped.load(ordering: .relaxed) }

  /// How many requests wait.
  package var waitingCount: Int { state.withLock { $0.waiting.count } }

  /// Lets no request begin, and returns when those that had begun are answered. False: too late, the
  /// mount is being taken away. A thread that serves such a request must not call it.
  package func stop() -> Bool {
    let isLate = state.wait { state -> Bool? in
      if state.hasEnded { return true }
      if state.isReleasing { return nil }
      state.isStopped = true
      isStopped.store(true, ordering: .relaxed)
      return false
    }
    if isLate ?? true { return false }
    // Lock: the gate, alone; nothing else is held.
    gate.exclusive {}
    return true
  }

  /// Serves what waits, in order of arrival, and lets new requests begin.
  package func go() {
    let waiting = state.withLock { state -> [Waiting]? in
      if !state.isStopped { return nil }
      state.isStopped = false
      isStopped.store(false, ordering: .relaxed)
      state.isReleasing = true
      let waiting = state.waiting.sorted { $0.key < $1.key }.map(\.value)
      state.waiting = [:]
      state.count -= waiting.count
      state.byteCount -= waiting.reduce(0) { $0 + $1.byteCount }
      return waiting
    }
    guard let waiting else { return }
    for request in waiting { request.reply.resume(request.serve) }
    state.change { $0.isReleasing = false }
  }

  /// The same, and no stop is possible any more. When it returns, no reply is left here.
  package func end() {
    state.withLock { $0.hasEnded = true }
    go()
    state.wait(while: { $0.isReleasing })
  }

  // MARK: - Requests

  /// Begins a request, which ends with `leave`. False: it is to be kept.
  func enter() -> Bool {
    if !gate.tryEnter() { return false }
    if !isStopped.load(ordering: .relaxed) { return true }
    gate.leave()
    return false
  }

  func leave() { gate.leave() }

  /// Keeps a request that could not begin until it is served by `serve`, which answers before it
  /// returns. `byteCount` is what it keeps in memory meanwhile.
  func keep(
    _ reply: consuming OwedReply, byteCount: Int = 0,
    serve: @escaping @Sendable (consuming OwedReply) -> Void
  ) {
    var reply: OwedReply? = reply
    while let owed = reply.take() {
      switch admit(byteCount) {
      case .refused: owed.end(EAGAIN)
      case .served:
        // The stop was over when this one came to wait. Perhaps there is another by now.
        gate.enter()
        defer { gate.leave() }
        if isStopped.load(ordering: .relaxed) {
          reply = consume owed
        } else {
          serve(owed)
        }
      case .waiting(let number):
        let parked = ParkedReply.park(owed) { [self] in forget(number) }
        let waiting = Waiting(reply: parked, byteCount: byteCount, serve: serve)
        if !add(waiting, as: number) { reply = parked.take() }
      }
    }
  }

  private func admit(_ byteCount: Int) -> Admission {
    state.withLock { state in
      if !state.isStopped { return .served }
      if state.count >= countLimit || byteCount > byteLimit - state.byteCount { return .refused }
      state.count += 1
      state.byteCount += byteCount
      state.lastNumber += 1
      return .waiting(state.lastNumber)
    }
  }

  /// Adds a request that was admitted. False: the stop is over, and the request is to begin.
  private func add(_ waiting: Waiting, as number: UInt64) -> Bool {
    let isStopped = state.withLock { state in
      if state.isStopped {
        state.waiting[number] = waiting
      } else {
        state.count -= 1
        state.byteCount -= waiting.byteCount
      }
      return state.isStopped
    }
    // An interrupt may have come before there was anything to forget.
    if isStopped, !waiting.reply.isWaiting { forget(number) }
    return isStopped
  }

  /// The client has gone.
  private func forget(_ number: UInt64) {
    // The value leaves the lock before it is released.
    _ = state.withLock { state -> Waiting? in
      guard let gone = state.waiting.removeValue(forKey: number) else { return nil }
      state.count -= 1
      state.byteCount -= gone.byteCount
      return gone
    }
  }
}
