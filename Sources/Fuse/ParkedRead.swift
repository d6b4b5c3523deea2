internal import Glibc
internal import HostSystem

// A reader that waits for something that may never come.
//
// Its worker has gone back to the pool; the reply lies here, and three may end it: whoever has the
// bytes, the kernel when the reader is interrupted or killed, and the session when it ends. The
// first takes the reply out from under the lock, the others find nothing.
//
//       park --> listening --> parked --> ended
//                    \            \--- interrupted: EINTR ---^
//                     \--- interrupted while listening: EINTR, once libfuse has let go
//
// libfuse's interrupt callback runs with the request's own lock held. When the interrupt came
// first, it runs inside fuse_req_interrupt_func, which unlocks the request afterwards; an answer in
// there would free the lock under its feet. So until listening is done the callback only leaves a
// mark. Later it comes from the worker that received the interrupt, which holds a reference of its
// own, and may answer.
//
// The callback knows its waiter by a number, not by a pointer: it can run while another thread
// answers, and a number that is no longer in the table is harmless.

/// A read that is answered later: with bytes, or with EINTR when the reader is interrupted.
package final class ParkedRead: Sendable {
  private struct State: ~Copyable {
    var owed: OwedReply?
    var isListening = true
    var wasInterrupted = false
  }

  private let state: Monitor<State>
  private let number: UInt
  private let table: ParkedReads
  /// Where the request came from; whoever answers does it by this.
  private let device = RequestDevice.current

  private init(_ owed: consuming OwedReply, number: UInt, table: ParkedReads) {
    self.number = number
    self.table = table
    state = Monitor(State(owed: owed))
  }

  static func park(_ owed: consuming OwedReply) -> ParkedRead {
    let table = owed.context.parked
    let number = table.nextNumber()
    // The request cannot end while it listens: the callback only marks, and nobody else knows
    // the read yet. So the listening may use it although the reply moves on.
    let listener = InterruptListener(owed)
    let read = ParkedRead(owed, number: number, table: table)
    table.add(read, as: number)
    listener.listen(as: number)
    read.finishListening()
    return read
  }

  /// The reader still waits. It may stop doing so at any moment.
  package var isWaiting: Bool {
    state.withLock { state in
      switch state.owed {
      case .some: true
      case .none: false
      }
    }
  }

  /// Ends with bytes; none mean the end of the file. False: the reader had gone, and has not seen
  /// them.
  package func send(_ bytes: RawSpan) -> Bool {
    guard let owed = take() else { return false }
    answer(owed) { $0.end(bytes) }
    return true
  }

  /// Ends with an errno. False: the reader had gone.
  @discardableResult
  package func fail(_ number: Int32) -> Bool {
    guard let owed = take() else { return false }
    answer(owed) { $0.end(number) }
    return true
  }

  func interrupt() {
    let owed = state.withLock { state -> OwedReply? in
      state.wasInterrupted = true
      return state.isListening ? nil : state.owed.take()
    }
    finish(owed, EINTR)
  }

  private func finishListening() {
    let owed = state.withLock { state -> OwedReply? in
      state.isListening = false
      return state.wasInterrupted ? state.owed.take() : nil
    }
    finish(owed, EINTR)
  }

  private func finish(_ owed: consuming OwedReply?, _ error: Int32) {
    guard let owed else { return }
    table.remove(number)
    answer(owed) { $0.end(error) }
  }

  private func answer(_ owed: consuming OwedReply, _ end: (consuming OwedReply) -> Void) {
    guard let device else { return end(owed) }
    var owed: OwedReply? = owed
    device.answering { if let owed = owed.take() { end(owed) } }
  }

  private func take() -> OwedReply? {
    let owed = state.withLock { $0.owed.take() }
    table.remove(number)
    return owed
  }
}

/// The parked reads of a session, by number, for the interrupt callback and the end of the session.
final class ParkedReads: Sendable {
  private struct State {
    var lastNumber: UInt = 0
    var reads: [UInt: ParkedRead] = [:]
  }

  private let state = Monitor(State())

  func nextNumber() -> UInt {
    state.withLock { state in
      state.lastNumber += 1
      return state.lastNumber
    }
  }

  func add(_ read: ParkedRead, as number: UInt) {
    state.withLock { $0.reads[number] = read }
  }

  func remove(_ number: UInt) {
    // The value leaves the lock before it is released.
    _ = state.withLock { $0.reads.removeValue(forKey: number) }
  }

  func interrupt(_ number: UInt) {
    state.withLock { $0.reads[number] }?.interrupt()
  }

  /// Ends every read that still waits.
  func failAll(_ error: Int32) {
    let reads = state.withLock { Array($0.reads.values) }
    for read in reads { read.fail(error) }
  }
}
