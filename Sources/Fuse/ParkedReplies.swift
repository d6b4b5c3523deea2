internal import HostSystem

/// The parked replies of a session, by number, for interrupts and the end of the session.
final class ParkedReplies: Sendable {
  private struct State {
    var lastNumber: UInt = 0
    var replies: [UInt: ParkedReply] = [:]
    /// The kernel's numbers of requests that came through io_uring.
    var onRings: [UInt64: UInt] = [:]
    /// Interrupts of requests that are not parked, or not yet.
    var early: [UInt64] = []
  }

  /// How many interrupts are remembered. One can be ahead of its request by no more than the time that
  /// the request takes to be parked.
  private static let earlyLimit = 256

  /// How many requests may wait in rings. They may all be in one, and it needs places for the rest.
  private static let ringLimit = RingThreads.placesOfRing / 2

  let answers = RingAnswers()
  private let state = Monitor(State())

  func nextNumber() -> UInt {
    state.withLock { state in
      state.lastNumber += 1
      return state.lastNumber
    }
  }

  func add(_ reply: ParkedReply, as number: UInt) {
    state.withLock { $0.replies[number] = reply }
  }

  /// One more request may be parked that came through io_uring. Two rings that ask at once may both be told
  /// so; there are places left for that.
  var hasRoomOnRings: Bool { state.withLock { $0.onRings.count < Self.ringLimit } }

  /// Adds a request that came through io_uring. True: its interrupt has been here already.
  func add(_ reply: ParkedReply, as number: UInt, onRing ringNumber: UInt64) -> Bool {
    state.withLock { state in
      state.replies[number] = reply
      state.onRings[ringNumber] = number
      return state.early.contains(ringNumber)
    }
  }

  func remove(_ number: UInt) {
    // The value leaves the lock before it is released.
    _ = state.withLock { state in
      for (ringNumber, parked) in state.onRings where parked == number {
        state.onRings[ringNumber] = nil
        break
      }
      return state.replies.removeValue(forKey: number)
    }
  }

  func interrupt(_ number: UInt) {
    state.withLock { $0.replies[number] }?.interrupt()
  }

  /// Interrupts the request that came through io_uring under this number of the kernel's. False: there is
  /// none, and if one comes it will find that it was interrupted.
  func interrupt(onRing ringNumber: UInt64) -> Bool {
    let reply = state.withLock { state -> ParkedReply? in
      if let number = state.onRings[ringNumber] { return state.replies[number] }
      if state.early.count == Self.earlyLimit { state.early.removeFirst() }
      state.early.append(ringNumber)
      return nil
    }
    reply?.interrupt()
    return reply != nil
  }

  /// Ends every reply that is still owed; the session is over.
  func abandonAll() {
    let replies = state.withLock { Array($0.replies.values) }
    for reply in replies { reply.abandon() }
  }

  /// Gives the answers that are still to be given. None may come after this.
  func finishAnswers() { answers.finish() }
}
