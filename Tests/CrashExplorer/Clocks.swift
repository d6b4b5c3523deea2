import Foundation
import HostSystem
import Synchronization
import TestSupport

/// A clock so late that nothing that waits for it ever wakes: a disk's own thread stays asleep.
struct FrozenTime: TimeSource {
  func now() -> MonotonicTime { MonotonicTime(nanoseconds: 1 << 61) }
  func wallTime() -> WallTime { WallTime(seconds: 1_700_000_000) }
}

/// The clock of a job with one thread, which lets a session in between the steps of that thread.
///
/// A job asks for the time between its steps, with no lock held. Asked by the job's thread, the clock
/// moves on and calls the session; asked by others, it only tells the time. It is so far behind the
/// host's clock that a wait for a moment returns at once.
final class StepTime: TimeSource {
  private struct State {
    var nanoseconds: UInt64 = 1_000_000
    var isOpen = false
    var isQuiet = false
    var isInside = false
    var random: SeededGenerator
    var step: (@Sendable () -> Void)?
  }

  private let state: Monitor<State>
  private let owner = pthread_self()

  /// A clock that holds the job's thread up until `open`.
  init(seed: UInt64) { state = Monitor(State(random: SeededGenerator(seed: seed))) }

  /// Lets the job go; `step` is called between its steps from now on.
  func open(_ step: (@Sendable () -> Void)?) {
    state.change { state in
      state.step = step
      state.isOpen = true
    }
  }

  /// Stands still, calls nobody any more, and lets go of whom it called.
  func stop() {
    state.change { state in
      state.step = nil
      state.isQuiet = true
      state.isOpen = true
    }
  }

  func now() -> MonotonicTime {
    if pthread_equal(pthread_self(), owner) != 0 { return state.withLock { Self.time($0) } }
    state.wait(while: { !$0.isOpen })
    let step = state.withLock { state -> (@Sendable () -> Void)? in
      if state.isQuiet || state.isInside { return nil }
      let steps: [UInt64] = [1, 20, 60, 300]
      state.nanoseconds += steps[Int.random(in: 0..<4, using: &state.random)] * 1_000_000
      state.isInside = state.step != nil
      return state.step
    }
    step?()
    return state.withLock { state in
      if step != nil { state.isInside = false }
      return Self.time(state)
    }
  }

  func wallTime() -> WallTime { WallTime(seconds: 1_700_000_000) }

  private static func time(_ state: borrowing State) -> MonotonicTime {
    MonotonicTime(nanoseconds: state.nanoseconds)
  }
}
