internal import HostSystem

/// A thread that calls a body once a second until it is stopped.
///
/// It bounds what a crash of the daemon loses of what no guest asked to be flushed.
final class BackgroundFlusher: Sendable {
  private struct State {
    var isStopped = false
    var worker: Worker?
  }

  private let state = Monitor(State())
  private static let intervalMilliseconds: Int64 = 1000

  /// Starts the thread.
  func start(
    name: String, timeSource: any TimeSource, _ body: @escaping @Sendable () -> Void
  ) throws(SystemError) {
    let worker = try Worker(name: name) { [state] in
      while true {
        let deadline = timeSource.now().advanced(byMilliseconds: Self.intervalMilliseconds)
        // True as soon as it is stopped, false at the deadline.
        if state.wait(until: deadline, while: { !$0.isStopped }) { return }
        body()
      }
    }
    state.withLock { $0.worker = worker }
  }

  /// Ends the thread and waits for it; nothing happens if there is none.
  func stop() {
    let worker = state.change { state in
      state.isStopped = true
      let worker = state.worker
      state.worker = nil
      return worker
    }
    worker?.join()
  }
}
