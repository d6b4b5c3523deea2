internal import Glibc
internal import HostSystem

// A client that waits for something that may never come.
//
// Its worker has gone back to the pool; the reply lies here, and three may end it: whoever has the
// answer (ParkedRead) or lets the request be served after all (RequestHold), the kernel when the client
// is interrupted or killed, and the session when it ends. The first takes the reply out from under the
// lock, the others find nothing.
//
//       park --> listening --> parked --> ended, or taken out to be served
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
// A request that came through io_uring (RingThreads.swift) is different in two ways. libfuse does not look
// for it when an interrupt comes; the loop does, by the kernel's number of the request. And it is answered
// by a thread that does nothing else (RingAnswers.swift). So there the first only leaves its answer behind.

/// A reply that is owed later, and ends with EINTR when its client is interrupted.
final class ParkedReply: Sendable {
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
  private let table: ParkedReplies
  private let isOnRing: Bool
  /// Where the request came from; whoever answers does it by this.
  private let device = RequestDevice.current
  /// Called when it ends with nobody's answer: interrupted, or with the session.
  private let whenGone: (@Sendable () -> Void)?

  private init(
    _ owed: consuming OwedReply, number: UInt, table: ParkedReplies,
    whenGone: (@Sendable () -> Void)?
  ) {
    self.number = number
    self.table = table
    self.whenGone = whenGone
    let isOnRing = owed.isOnRing
    self.isOnRing = isOnRing
    state = Monitor(State(owed: owed, isListening: !isOnRing))
  }

  /// Keeps a reply until somebody ends it.
  ///
  /// `whenGone` is called, perhaps before this returns, if an interrupt or the session ends it; with no
  /// lock of this module held.
  static func park(
    _ owed: consuming OwedReply, whenGone: (@Sendable () -> Void)? = nil
  ) -> ParkedReply {
    let table = owed.context.parked
    let number = table.nextNumber()
    if owed.isOnRing { return parkOnRing(owed, as: number, in: table, whenGone) }
    // The request cannot end while it listens: the callback only marks, and nobody else knows
    // the reply yet. So the listening may use it although the reply moves on.
    let listener = InterruptListener(owed)
    let parked = ParkedReply(owed, number: number, table: table, whenGone: whenGone)
    table.add(parked, as: number)
    listener.listen(as: number)
    parked.finishListening()
    return parked
  }

  private static func parkOnRing(
    _ owed: consuming OwedReply, as number: UInt, in table: ParkedReplies,
    _ whenGone: (@Sendable () -> Void)?
  ) -> ParkedReply {
    let ringNumber = owed.numberOnRing
    let client = owed.caller.threadID
    let parked = ParkedReply(owed, number: number, table: table, whenGone: whenGone)
    guard let ringNumber, table.hasRoomOnRings, table.answers.start() else {
      // A client that nobody could interrupt must not wait, nor one that takes the last places of a ring
      // from everybody else. This is the ring's own thread, which may answer.
      parked.finish(parked.take(), EAGAIN)
      return parked
    }
    // Order: first an interrupt finds the reply, then the client is looked at.
    let wasInterrupted = table.add(parked, as: number, onRing: ringNumber)
    if wasInterrupted || ClientThread.isInterrupted(client) { parked.interrupt() }
    return parked
  }

  /// The client still waits. It may stop doing so at any moment.
  var isWaiting: Bool { state.withLock { $0.isOpen } }

  /// Ends with bytes. False: the client had gone, and has not seen them.
  func send(_ bytes: RawSpan) -> Bool {
    if isOnRing { return leave(.bytes(bytes.copied())) }
    guard let owed = take() else { return false }
    answer(owed) { $0.end(bytes) }
    return true
  }

  /// Ends with an errno. False: the client had gone.
  @discardableResult
  func fail(_ number: Int32) -> Bool {
    if isOnRing { return leave(.failure(number)) }
    guard let owed = take() else { return false }
    answer(owed) { $0.end(number) }
    return true
  }

  /// Lets the request be served after all: `body` gets the reply, to end it before it returns. Nothing
  /// happens if the client has gone.
  ///
  /// Not for a request from a ring, which ends with EAGAIN: only the thread of the answers may answer it.
  func resume(_ body: (consuming OwedReply) -> Void) {
    if isOnRing {
      _ = leave(.failure(EAGAIN))
      return
    }
    if let owed = take() { answer(owed, body) }
  }

  /// The session is over.
  func abandon() {
    if fail(ENODEV) { whenGone?() }
  }

  func interrupt() {
    if isOnRing {
      if leave(.failure(EINTR)) { whenGone?() }
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
    whenGone?()
    answer(owed) { $0.end(error) }
  }

  private func answer(_ owed: consuming OwedReply, _ end: (consuming OwedReply) -> Void) {
    guard let device else { return end(owed) }
    var owed: OwedReply? = owed
    device.answering { if let owed = owed.take() { end(owed) } }
  }

  /// The reply, for whoever takes over the duty to end it on the thread that parked it; nil if the client
  /// has gone.
  func take() -> OwedReply? {
    let owed = state.withLock { $0.owed.take() }
    table.remove(number)
    return owed
  }
}
