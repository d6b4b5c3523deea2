// Flushes of several callers share one. A caller is served by any flush that begins after it asked;
// one that is already under way may have missed its writes.

internal import HostSystem

/// Lets one caller flush for all who wait.
final class FlushGroup: Sendable {
  private struct State: Sendable {
    var isRunning = false
    var begun: UInt64 = 0
    /// The last flush that ended well, and the last that failed with why.
    var succeeded: UInt64 = 0
    var failed: (number: UInt64, error: ImageError)?
  }

  private enum Part: Sendable {
    case leads(UInt64)
    case served
    case failed(ImageError)
  }

  private let state = Monitor(State())

  /// Returns when a flush that began after the call has ended; runs `body` if nobody else does.
  func run(_ body: () throws(ImageError) -> Void) throws(ImageError) {
    let wanted = state.withLock { $0.begun + 1 }
    let part = state.wait { state -> Part? in
      if let failed = state.failed, failed.number >= wanted { return .failed(failed.error) }
      if state.succeeded >= wanted { return .served }
      if state.isRunning { return nil }
      state.isRunning = true
      state.begun += 1
      return .leads(state.begun)
    }
    switch part {
    case .served: return
    case .failed(let error): throw error
    case .leads(let number):
      do { try body() } catch {
        state.change { state in
          state.isRunning = false
          state.failed = (number, error)
        }
        throw error
      }
      state.change { state in
        state.isRunning = false
        state.succeeded = number
      }
    case nil: preconditionFailure("a wait without a deadline ended without an answer")
    }
  }
}
