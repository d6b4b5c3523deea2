internal import HostSystem

// Who answers a parked request that came through io_uring.
//
// A ring has a lock, which its thread holds while it calls an operation, and which everybody else takes to
// put an answer into the ring. An operation that answers a reader of another ring would wait for that one's
// thread, which may just be answering a reader of this ring. So such answers are left here, and a thread
// that holds nothing gives them.

/// What a parked request is answered with.
enum RingAnswer: Sendable {
  case bytes([UInt8])
  case failure(Int32)
}

/// The answers that are on their way to rings, and the thread that brings them.
final class RingAnswers: Sendable {
  private struct State {
    var answers: [(reply: ParkedReply, answer: RingAnswer)] = []
    var worker: Worker?
    var isFinished = false
  }

  private let state = Monitor(State())

  /// Makes sure that there is a thread. False: there is none to be had.
  func start() -> Bool {
    state.withLock { state in
      if state.worker != nil { return true }
      do throws(SystemError) {
        state.worker = try Worker(name: "answers") { [self] in work() }
        return true
      } catch {
        return false
      }
    }
  }

  /// Leaves an answer to be given. There is a thread: `start` said so.
  func add(_ answer: RingAnswer, to reply: ParkedReply) {
    state.change { $0.answers.append((reply, answer)) }
  }

  /// Waits until all answers are given and the thread has ended.
  func finish() {
    let worker = state.change { state in
      state.isFinished = true
      return state.worker
    }
    worker?.join()
  }

  private func work() {
    while true {
      let next = state.wait { state -> [(reply: ParkedReply, answer: RingAnswer)]? in
        defer { state.answers = [] }
        return state.answers.isEmpty && !state.isFinished ? nil : state.answers
      }
      guard let next, !next.isEmpty else { return }
      for (reply, answer) in next { reply.give(answer) }
    }
  }
}
