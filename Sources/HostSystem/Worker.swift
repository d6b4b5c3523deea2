internal import CHost
internal import Glibc

/// A named thread that runs one function and is joined by its owner.
package final class Worker: Sendable {
  /// Who goes first where there are more threads than processors.
  package enum Priority: Sendable {
    /// Like the thread that starts it.
    case same
    /// Behind those that somebody waits for: the scheduler lets them go before.
    case background
  }

  /// What the thread is called in ps and in a debugger; the kernel keeps 15 bytes of it.
  package let name: String
  // The thread, until somebody has joined it.
  private let thread: Monitor<pthread_t?>

  /// Starts a thread that runs `body`.
  package init(
    name: String, priority: Priority = .same, body: @escaping @Sendable () -> Void
  ) throws(SystemError) {
    self.name = name
    // Balanced: released by the thread, or below if there is none.
    let start = unsafe Unmanaged.passRetained(
      ThreadStart {
        if priority == .background { Self.stepBack() }
        body()
      })
    var thread = pthread_t()
    // Alive: the retained start is the thread's to release; `thread` is this local.
    let status = unsafe pthread_create(&thread, nil, runThread, start.toOpaque())
    if status != 0 {
      // No thread was made, so nobody else will release it.
      unsafe start.release()
      throw SystemError(call: "pthread_create", number: status)
    }
    // Alive: the name's bytes are for the call only. A name is for people: no failure of it matters.
    _ = unsafe chainfs_thread_name(thread, String(decoding: name.utf8.prefix(15), as: UTF8.self))
    self.thread = Monitor(thread)
  }

  /// Lowers the priority of the calling thread, by about a tenth of a processor to nine for others.
  ///
  /// No lower: who holds a lock that others wait for has to get on too.
  private static func stepBack() {
    // On Linux this is the calling thread's own. A failure only means that it competes.
    _ = setpriority(__priority_which_t(PRIO_PROCESS.rawValue), 0, 10)
  }

  /// Lets whoever waits for the calling thread's processor go first.
  package static func offerProcessor() {
    // Always succeeds on Linux.
    sched_yield()
  }

  /// Runs `body` on a new thread, for which the calling one only waits from now on.
  ///
  /// What the child of a fork has to do: Swift's locks know a thread by an id that is asked for once,
  /// and the forked thread keeps that of its parent. A lock that it holds cannot be waited for or given
  /// back once a second thread wants it; the process traps, or spins for ever.
  package static func replaceThread(
    _ body: @escaping @Sendable () -> Void
  ) throws(SystemError) {
    // Balanced: released by the thread, or below if there is none. Nothing here takes a lock while the
    // thread runs: the waiting is done in C.
    let start = unsafe Unmanaged.passRetained(ThreadStart(body))
    let status = unsafe chainfs_replace_thread(runThread, start.toOpaque())
    if status != 0 {
      unsafe start.release()
      throw SystemError(call: "pthread_create", number: status)
    }
  }

  /// Waits until the function has returned. Joining again returns at once.
  ///
  /// Called from the thread itself it returns at once too: a thread cannot wait for its own end.
  package func join() {
    let joined = thread.withLock { thread -> pthread_t? in
      guard let own = thread, pthread_equal(own, pthread_self()) == 0 else { return nil }
      thread = nil
      return own
    }
    if let joined { pthread_join(joined, nil) }
  }

  deinit {
    // Forgotten: the thread goes on and cleans up after itself.
    if let thread = thread.withLock({ $0 }) { pthread_detach(thread) }
  }
}

/// What a new thread finds: the function to run.
private final class ThreadStart: Sendable {
  let body: @Sendable () -> Void
  init(_ body: @escaping @Sendable () -> Void) { self.body = body }
}

private func runThread(_ argument: UnsafeMutableRawPointer?) -> UnsafeMutableRawPointer? {
  // Alive: Worker retained it for this thread, and it is released here.
  if let argument = unsafe argument {
    let start = unsafe Unmanaged<ThreadStart>.fromOpaque(argument).takeRetainedValue()
    start.body()
  }
  return nil
}
