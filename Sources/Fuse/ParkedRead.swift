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
//
// A read that came through io_uring (RingThreads.swift) is different in two ways. libfuse does not look
// for it when an interrupt comes; the loop does, by the kernel's number of the read. And it is answered by
// a thread that does nothing else (RingAnswers.swift). So there the first only leaves its answer behind.

/// A read that is answered later: with bytes, or with EINTR when the reader is interrupted.
package final class ParkedRead: Sendable {
  private struct State: ~Copyable {
    var owed: OwedReply?
    var isListening: Bool
    var wasInterrupted = false
    /// Its answer is on the way to the thread that gives it.
    var isAnswered = false

    /// Nobody has ended it.
    var isOpen: Bool {
      switch owed {
      case .some: !isAnswered
      case .none: false
      }
    }
  }

  private let state: Monitor<State>
  private let number: UInt
  private let table: ParkedReads
  private let isOnRing: Bool
  /// Where the request came from; whoever answers does it by this.
  private let device = RequestDevice.current

  private init(_ owed: consuming OwedReply, number: UInt, table: ParkedReads) {
    self.number = number
    self.table = table
    let isOnRing = owed.isOnRing
    self.isOnRing = isOnRing
    state = Monitor(State(owed: owed, isListening: !isOnRing))
  }

  static func park(_ owed: consuming OwedReply) -> ParkedRead {
    let table = owed.context.parked
    let number = table.nextNumber()
    if owed.isOnRing { return parkOnRing(owed, as: number, in: table) }
    // The request cannot end while it listens: the callback only marks, and nobody else knows
    // the read yet. So the listening may use it although the reply moves on.
    let listener = InterruptListener(owed)
    let read = ParkedRead(owed, number: number, table: table)
    table.add(read, as: number)
    listener.listen(as: number)
    read.finishListening()
    return read
  }

  private static func parkOnRing(
    _ owed: consuming OwedReply, as number: UInt, in table: ParkedReads
  ) -> ParkedRead {
    let ringNumber = owed.numberOnRing
    let client = owed.caller.threadID
    let read = ParkedRead(owed, number: number, table: table)
    guard let ringNumber, table.hasRoomOnRings, table.answers.start() else {
      // A reader that nobody could interrupt must not wait, nor one that takes the last places of a ring
      // from everybody else. This is the ring's own thread, which may answer.
      read.finish(read.take(), EAGAIN)
      return read
    }
    // Order: first an interrupt finds the read, then the client is looked at.
    let wasInterrupted = table.add(read, as: number, onRing: ringNumber)
    if wasInterrupted || ClientThread.isInterrupted(client) { read.interrupt() }
    return read
  }

  /// The reader still waits. It may stop doing so at any moment.
  package var isWaiting: Bool { state.withLock { $0.isOpen } }

  /// Ends with bytes; none mean the end of the file. False: the reader had gone, and has not seen
  /// them.
  package func send(_ bytes: RawSpan) -> Bool {
    if isOnRing { return leave(.bytes(bytes.copied())) }
    guard let owed = take() else { return false }
    answer(owed) { $0.end(bytes) }
    return true
  }

  /// Ends with an errno. False: the reader had gone.
  @discardableResult
  package func fail(_ number: Int32) -> Bool {
    if isOnRing { return leave(.failure(number)) }
    guard let owed = take() else { return false }
    answer(owed) { $0.end(number) }
    return true
  }

  func interrupt() {
    if isOnRing {
      _ = leave(.failure(EINTR))
      return
    }
    let owed = state.withLock { state -> OwedReply? in
      state.wasInterrupted = true
      return state.isListening ? nil : state.owed.take()
    }
    finish(owed, EINTR)
  }

  /// Gives an answer that was left behind; for the thread of the answers.
  func give(_ answer: RingAnswer) {
    guard let owed = state.withLock({ $0.owed.take() }) else { return }
    switch answer {
    case .bytes(let bytes): owed.end(bytes, 0..<bytes.count)
    case .failure(let number): owed.end(number)
    }
  }

  /// Leaves an answer behind for the thread that gives it. False: somebody else did.
  private func leave(_ answer: RingAnswer) -> Bool {
    let isFirst = state.withLock { state in
      defer { state.isAnswered = true }
      return state.isOpen
    }
    table.remove(number)
    if isFirst { table.answers.add(answer, to: self) }
    return isFirst
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

/// The parked reads of a session, by number, for interrupts and the end of the session.
final class ParkedReads: Sendable {
  private struct State {
    var lastNumber: UInt = 0
    var reads: [UInt: ParkedRead] = [:]
    /// The kernel's numbers of reads that came through io_uring.
    var onRings: [UInt64: UInt] = [:]
    /// Interrupts of requests that are no parked reads, or not yet.
    var early: [UInt64] = []
  }

  /// How many interrupts are remembered. One can be ahead of its read by no more than the time that the
  /// read takes to be parked.
  private static let earlyLimit = 256

  /// How many reads may wait in rings. They may all be in one, and it needs places for the rest.
  private static let ringLimit = RingThreads.placesOfRing / 2

  let answers = RingAnswers()
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

  /// One more read may be parked that came through io_uring. Two rings that ask at once may both be told
  /// so; there are places left for that.
  var hasRoomOnRings: Bool { state.withLock { $0.onRings.count < Self.ringLimit } }

  /// Adds a read that came through io_uring. True: its interrupt has been here already.
  func add(_ read: ParkedRead, as number: UInt, onRing ringNumber: UInt64) -> Bool {
    state.withLock { state in
      state.reads[number] = read
      state.onRings[ringNumber] = number
      return state.early.contains(ringNumber)
    }
  }

  func remove(_ number: UInt) {
    // The value leaves the lock before it is released.
    _ = state.withLock { state in
      for (ringNumber, read) in state.onRings where read == number {
        state.onRings[ringNumber] = nil
        break
      }
      return state.reads.removeValue(forKey: number)
    }
  }

  func interrupt(_ number: UInt) {
    state.withLock { $0.reads[number] }?.interrupt()
  }

  /// Interrupts the read that came through io_uring under this number of the kernel's. False: there is
  /// none, and if one comes it will find that it was interrupted.
  func interrupt(onRing ringNumber: UInt64) -> Bool {
    let read = state.withLock { state -> ParkedRead? in
      if let number = state.onRings[ringNumber] { return state.reads[number] }
      if state.early.count == Self.earlyLimit { state.early.removeFirst() }
      state.early.append(ringNumber)
      return nil
    }
    read?.interrupt()
    return read != nil
  }

  /// Ends every read that still waits.
  func failAll(_ error: Int32) {
    let reads = state.withLock { Array($0.reads.values) }
    for read in reads { read.fail(error) }
  }

  /// Gives the answers that are still to be given. None may come after this.
  func finishAnswers() { answers.finish() }
}
