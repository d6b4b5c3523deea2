import HostSystem
import Jobs

/// Tells when a job waits to be finalized.
final class PendingWatch: JobEventSink {
  private struct State {
    var isPending = false
    var action: (@Sendable () -> Void)?
  }

  private let state = Monitor(State())

  /// Calls `action` on the job's thread, which has nothing to do then until it is finalized.
  func onPending(_ action: @escaping @Sendable () -> Void) {
    state.withLock { $0.action = action }
  }

  func note(_ event: JobEvent) {
    guard case .pending = event else { return }
    state.withLock { $0.isPending = true }
  }

  func announce() {
    let action = state.withLock { state in
      defer { state.isPending = false }
      return state.isPending ? state.action : nil
    }
    action?()
  }
}
