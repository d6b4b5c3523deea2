internal import CFuse
internal import Glibc
internal import HostSystem
internal import Synchronization

// The workers: each takes a request, serves it and answers it, all by itself.
//
// There is one to begin with. A worker that takes a request while no other waits for one starts the
// next, up to a limit; none ends before the session, since their buffers are warm and a new thread
// costs more than many reads. Two steps of one counter are all that workers share for a request. Where a
// thread that starts could wait for memory that only the workers can free, all are started at once, with
// their buffers, before the first request.
//
// Where libfuse and the kernel agree on io_uring, threads of libfuse's (RingThreads.swift) call the
// operations, and only interrupts and forgets still come this way.
//
// The end: once the kernel has cut the connection each worker reads ENODEV and leaves. While it is
// connected, `end` marks the session, and the thread in `run` sends the workers SIGURG, again and again
// until all have left: one that waits in read(2) is woken, one that was just about to wait is woken by
// the next signal, one that serves a request finishes it first. The threads of rings are woken likewise.
// No thread is cancelled.

/// Serves a session's requests until it ends.
///
/// Sendable, unchecked: libfuse's session outlives the loop (FuseSession sees to that), and what is
/// called here may be called by several threads.
@safe final class RequestLoop: @unchecked Sendable {
  private struct State {
    var workers: [Worker] = []
    /// The threads that have not left yet.
    var threads: [pthread_t] = []
    var running = 0
    /// Workers read from clones of the session's descriptor.
    var hasDevices = true
    var isEnding = false
    var failure: Int32 = 0
    /// Libfuse's own; nil before the first request, by which the kernel and libfuse come to terms.
    var rings: RingThreads?
  }

  private let session: OpaquePointer
  private let parked: ParkedReplies
  private let limit: Int
  private let starting: ThreadStarting
  private let state = Monitor(State())
  /// Workers that wait for a request, or are about to.
  private let waiting = Atomic<Int>(0)
  private let isFull = Atomic<Bool>(false)

  init(
    _ session: OpaquePointer, parked: ParkedReplies, threads: Int, starting: ThreadStarting
  ) {
    unsafe self.session = session
    self.parked = parked
    limit = threads
    self.starting = starting
  }

  /// Serves until the connection is cut or `end` is called, and all workers have left. Gives 0, or the
  /// errno that took the connection away.
  func run() -> Int32 {
    Self.wakeable()
    let number = unsafe RequestDevice.connect(session)
    if number != 0 && number != ENOTSUP { return number }
    state.withLock { state in
      state.hasDevices = number == 0
      for _ in 0..<(starting == .atOnce ? limit : 1) { start(&state) }
    }
    state.wait(while: { $0.running > 0 && !$0.isEnding })
    let clock = SystemTimeSource()
    while !hasEnded() {
      // A worker that leaves says so; a thread of a ring does not.
      let isAlone = state.withLock { $0.running == 0 }
      state.wait(
        until: clock.now().advanced(byMilliseconds: 5), while: { isAlone || $0.running > 0 })
    }
    let (workers, failure) = state.withLock { ($0.workers, $0.failure) }
    for worker in workers { worker.join() }
    return failure
  }

  /// Ends the loop although the kernel is still connected. From any thread, while the session exists.
  func end() {
    unsafe fuse_session_exit(session)
    state.change { $0.isEnding = true }
  }

  /// Libfuse has threads of its own for this session, or had.
  var hasRings: Bool { state.withLock { $0.rings?.wereStarted ?? false } }

  /// Wakes the workers that are left; true once there are none.
  private func hasEnded() -> Bool {
    state.withLock { state in
      // Alive: a thread leaves the list under the lock before it ends.
      for thread in state.threads { pthread_kill(thread, SIGURG) }
      let ringsHaveEnded = state.rings?.haveEnded() ?? true
      return state.running == 0 && ringsHaveEnded
    }
  }

  private func start(_ state: inout State) {
    if state.isEnding || state.running >= limit { return }
    do throws(SystemError) {
      state.workers.append(try Worker(name: "requests") { [self] in work() })
      state.running += 1
      waiting.wrappingAdd(1, ordering: .relaxed)
    } catch {
      // The others go on; without any, that is why the session ends.
      if state.running == 0 { state.failure = error.number }
    }
    if state.running >= limit { isFull.store(true, ordering: .relaxed) }
  }

  private func work() {
    let hasDevices = state.withLock { state in
      state.threads.append(pthread_self())
      return state.hasDevices
    }
    if starting == .atOnce { ThreadBuffer.prepare() }
    let number: Int32 =
      if hasDevices, let device = RequestDevice(session: unsafe fuse_session_fd(session)) {
        device.answering { serve() }
      } else {
        serve()
      }
    unsafe fuse_session_exit(session)
    state.change { state in
      state.threads.removeAll { pthread_equal($0, pthread_self()) != 0 }
      state.running -= 1
      state.isEnding = true
      if state.failure == 0 { state.failure = number }
    }
  }

  private func serve() -> Int32 {
    unsafe RequestMemory.whileServing(starting) { unsafe serve(readingInto: $0) }
  }

  /// Takes requests until there are no more; gives the errno of a device that fails.
  private func serve(readingInto memory: UnsafeMutableRawPointer) -> Int32 {
    var buffer = unsafe fuse_buf()
    // Alive: as long as this thread serves. In bounds: RequestDevice reads no more than it holds.
    unsafe buffer.mem = memory
    var isFirst = true
    while unsafe fuse_session_exited(session) == 0 {
      let length = unsafe fuse_session_receive_buf(session, &buffer)
      if length == -EINTR || length == -EAGAIN { continue }
      // None: the connection is cut, or the session was told to end.
      if length <= 0 { return -length }
      let (_, left) = waiting.subtract(1, ordering: .relaxed)
      if left == 0, !isFull.load(ordering: .relaxed) { state.withLock { start(&$0) } }
      unsafe process(&buffer, isFirst: isFirst)
      isFirst = false
      waiting.wrappingAdd(1, ordering: .relaxed)
    }
    return 0
  }

  /// Serves one request; `isFirst` if it is this worker's first.
  private func process(_ buffer: inout fuse_buf, isFirst: Bool) {
    if isFirst, chainfs_library_has_rings() != 0, state.withLock({ $0.rings == nil }) {
      // The first of all: the kernel sends nothing else until it is answered.
      let rings = RingThreads.started(in: { unsafe fuse_session_process_buf(session, &buffer) })
      return state.withLock { $0.rings = rings }
    }
    if let number = unsafe interrupted(buffer), parked.interrupt(onRing: number) { return }
    unsafe fuse_session_process_buf(session, &buffer)
  }

  /// The number of the request that an interrupt speaks of; nil for every other request.
  private func interrupted(_ buffer: fuse_buf) -> UInt64? {
    let headerSize = MemoryLayout<fuse_in_header>.size
    // In bounds: both sizes are compared with what was received. Aligned: headers start at sixteen bytes.
    guard chainfs_library_has_rings() != 0, let bytes = unsafe buffer.mem,
      unsafe buffer.size >= headerSize + MemoryLayout<fuse_interrupt_in>.size,
      unsafe bytes.load(as: fuse_in_header.self).opcode == FUSE_INTERRUPT.rawValue
    else { return nil }
    return unsafe bytes.load(fromByteOffset: headerSize, as: fuse_interrupt_in.self).unique
  }

  /// Lets SIGURG, which is ignored unless somebody asks for it, interrupt the waits of this thread and
  /// of those that it starts.
  private static func wakeable() {
    var action = sigaction()
    unsafe action.__sigaction_handler.sa_handler = emptySignalHandler()
    var signals = sigset_t()
    // Alive: all of these are locals. Without SA_RESTART the interrupted wait returns.
    unsafe sigemptyset(&signals)
    unsafe sigaddset(&signals, SIGURG)
    unsafe sigaction(SIGURG, &action, nil)
    unsafe pthread_sigmask(SIG_UNBLOCK, &signals, nil)
  }
}
