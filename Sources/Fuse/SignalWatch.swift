internal import Glibc
package import HostSystem

// Signals as calls.
//
// A signal handler may do next to nothing, and lands on any thread. So the signals are blocked
// everywhere, and one thread waits for them with sigwait. Blocking has to come before the first other
// thread, since threads inherit what is blocked: the watch is made before everything else.

/// Turns SIGTERM, SIGINT and SIGHUP into calls, for the life of the process or until `stop`.
///
/// SIGPIPE is ignored from then on: a peer that is gone is an error of write, not the end.
package final class SignalWatch: Sendable {
  private struct State {
    var thread: pthread_t?
    var isStopped = false
  }

  private let state = Monitor(State())
  private let worker: Monitor<Worker?>

  /// Starts to watch. To be called before other threads are started. `receive` is called on the
  /// watch's own thread, with the number of the signal, once for each that comes.
  package init(receive: @escaping @Sendable (Int32) -> Void) throws(SystemError) {
    worker = Monitor(nil)
    Self.ignoreBrokenPipes()
    Self.block()
    let started = try Worker(name: "signals") { [state] in
      state.change { $0.thread = pthread_self() }
      while true {
        let signal = Self.next()
        if state.withLock({ $0.isStopped }) { return }
        receive(signal)
      }
    }
    worker.withLock { $0 = started }
  }

  /// Stops watching and joins the thread. The signals stay blocked. Not to be called by `receive`.
  package func stop() {
    guard let worker = worker.withLock({ $0.take() }) else { return }
    state.withLock { $0.isStopped = true }
    // To this thread alone: it is in sigwait, or will be, and finds that it is stopped.
    send(SIGHUP)
    worker.join()
  }

  /// Sends a signal to the watch's own thread, which is there until the watch is stopped.
  func send(_ signal: Int32) {
    state.wait(while: { $0.thread == nil })
    if let thread = state.withLock({ $0.thread }) { pthread_kill(thread, signal) }
  }

  private static func watched() -> sigset_t {
    var signals = sigset_t()
    // Alive: the set is this local.
    unsafe sigemptyset(&signals)
    for number in [SIGTERM, SIGINT, SIGHUP] { unsafe sigaddset(&signals, number) }
    return signals
  }

  private static func block() {
    var signals = watched()
    // Alive: the set is this local.
    unsafe pthread_sigmask(SIG_BLOCK, &signals, nil)
  }

  private static func next() -> Int32 {
    var signals = watched()
    var number: Int32 = 0
    // Alive: both are locals. sigwait fails only for a set that holds no signal.
    let status = unsafe sigwait(&signals, &number)
    precondition(status == 0, "sigwait refuses its set of signals")
    return number
  }

  private static func ignoreBrokenPipes() {
    var action = sigaction()
    unsafe action.__sigaction_handler.sa_handler = SIG_IGN
    // Alive: the struct is this local.
    unsafe sigaction(SIGPIPE, &action, nil)
  }
}
