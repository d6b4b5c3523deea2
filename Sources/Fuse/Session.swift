internal import CFuse
internal import Glibc
internal import HostSystem
internal import Synchronization

// A mount, from mount(2) to the last thread.
//
//     init --> mounted --- run() ---> serving ---> ended
//                  \--- deinit -----------------------^
//
// Threads. `run` is the caller's thread and only waits. libfuse starts workers as they are needed,
// each with its own clone of the device descriptor, and joins them before its loop returns. A thread
// named `unmount` exists from the first `requestUnmount` to the end. Nothing of a session runs after
// `run` has returned.
//
// The end comes from two sides. umount(8) makes the kernel cut the connection; each worker reads
// ENODEV and leaves. For `requestUnmount`, see Session+Unmount.swift; if files stay open, the loop is
// told to end, which libfuse looks at between two waits only. The thread in `run` waits in sem_wait,
// so a signal with an empty handler wakes it, again and again until it has seen it (the first may
// come just before the wait). libfuse then cancels the workers that wait for a request and lets the
// others finish theirs.
//
// Order at the end: workers are joined; parked reads fail; open files that the kernel never
// released are released; `Operations.destroy` (no reply is left now: each holds a part of libfuse's
// session); the mount is taken away if it is still there, and the connection closed, which lets
// clients go that still wait; the session is freed.
//
// The one signal used is SIGURG, which is ignored unless somebody asks for it.

/// A file system that is mounted and can be served.
///
/// Sendable, unchecked: libfuse's session is used by `run` and freed at its end under `state`, and
/// other threads reach it under `state` too.
@safe package final class FuseSession: @unchecked Sendable {
  enum Phase {
    case mounted
    case serving(pthread_t)
    case ended
  }

  struct State {
    var phase = Phase.mounted
    /// How often an unmount was asked for: once in order, twice at once.
    var requests = 0
    /// The mount is gone already, so that nothing mounted there later is taken for it.
    var wasDetached = false
    var unmounters: [Worker] = []
  }

  /// The ioctl by which a program asks for the process that serves a file: _IOR('C', 1, int32_t),
  /// so it fills an Int32. Any file or directory of the mount answers it, open for reading.
  package static let processQuestion: UInt32 = 2 << 30 | 4 << 16 | 0x43 << 8 | 1

  /// Where it is mounted.
  package let mountPoint: MountPoint
  let state = Monitor(State())
  let mountedDevice: String?
  private let session: OpaquePointer
  private let context: SessionContext
  private let userData: UnsafeMutableRawPointer
  private let threads: Int

  /// Mounts. From here on requests wait until `run` serves them.
  package init(
    mountpoint: MountPoint, options: SessionOptions, operations: any Operations
  ) throws(FuseError) {
    mountPoint = mountpoint
    threads = max(options.threads, 1)
    context = SessionContext(operations, writeback: options.writeback)
    unsafe userData = context.retainedUserData()
    let made = unsafe Self.makeSession(options.mountArguments, userData)
    guard let session = unsafe made.result else {
      unsafe SessionContext.release(userData)
      throw unsafe .optionsRefused(made.lines)
    }
    unsafe self.session = session
    let mounted = LibraryLog.collecting { unsafe fuse_session_mount(session, mountpoint.path) }
    if mounted.result != 0 {
      unsafe fuse_session_destroy(session)
      unsafe SessionContext.release(userData)
      throw .mountRefused(path: mountpoint.path, mounted.lines)
    }
    mountedDevice = Self.device(at: mountpoint.path)
  }

  deinit {
    // Never served: take the mount back. After `run` the phase says that all is done.
    if case .mounted = state.withLock({ $0.phase }) { close() }
  }

  /// How many opens have not been released.
  package var openFileCount: Int { context.files.count }

  /// Serves until the file system is unmounted, and returns when everything has ended. Once only.
  package func run() throws(FuseError) {
    wakeable()
    let pending = state.change { state -> Bool in
      guard case .mounted = state.phase else { preconditionFailure("a session runs once") }
      state.phase = .serving(pthread_self())
      return state.requests > 0
    }
    if pending { startUnmounter(inOrder: true) }
    let number = loop()
    // From here on nobody else touches the session.
    let unmounters = state.change { state in
      state.phase = .ended
      defer { state.unmounters = [] }
      return state.unmounters
    }
    close()
    // After the connection is closed: an unmounter may wait for an answer until then.
    for worker in unmounters { worker.join() }
    if number < 0 { throw .connectionLost(number: -number) }
  }

  /// Tells libfuse's loop to end, if it runs. False: it does not run any more.
  func interruptLoop() -> Bool {
    state.withLock { state in
      guard case .serving(let thread) = state.phase else { return false }
      // Alive: the session and the thread are there as long as the phase says so, under the lock.
      unsafe fuse_session_exit(session)
      pthread_kill(thread, SIGURG)
      return true
    }
  }

  // MARK: - libfuse's session

  private static func makeSession(
    _ arguments: [String], _ userData: UnsafeMutableRawPointer
  ) -> (result: OpaquePointer?, lines: [String]) {
    unsafe LibraryLog.collecting {
      var list = unsafe fuse_args()
      // libfuse copies the strings; it may add to the list, and frees it here.
      defer { unsafe fuse_opt_free_args(&list) }
      for argument in arguments where unsafe fuse_opt_add_arg(&list, argument) != 0 { return nil }
      var table = operationTable()
      // Copied by libfuse, up to the size that is passed along.
      return unsafe fuse_session_new(
        &list, &table, MemoryLayout<fuse_lowlevel_ops>.size, userData)
    }
  }

  private static func device(at path: String) -> String? {
    do throws(SystemError) {
      return try MountTable.entry(at: path)?.device
    } catch {
      // Without the table the mount cannot be told from another one; unmounting is left to libfuse.
      return nil
    }
  }

  /// Lets SIGURG interrupt this thread's waits.
  private func wakeable() {
    var action = sigaction()
    unsafe action.__sigaction_handler.sa_handler = emptySignalHandler()
    var signals = sigset_t()
    // Alive: all of these are locals. Without SA_RESTART the interrupted wait returns.
    unsafe sigemptyset(&signals)
    unsafe sigaddset(&signals, SIGURG)
    unsafe sigaction(SIGURG, &action, nil)
    unsafe pthread_sigmask(SIG_UNBLOCK, &signals, nil)
  }

  private func loop() -> Int32 {
    let configuration = unsafe fuse_loop_cfg_create()
    // Alive: made above, freed below, used in between.
    defer { unsafe fuse_loop_cfg_destroy(configuration) }
    unsafe fuse_loop_cfg_set_clone_fd(configuration, 1)
    unsafe fuse_loop_cfg_set_max_threads(configuration, UInt32(clamping: threads))
    // Idle workers stay: their buffers are warm, and starting a thread costs more than many reads.
    unsafe fuse_loop_cfg_set_idle_threads(configuration, UInt32(clamping: threads))
    return unsafe chainfs_session_loop_mt(session, configuration)
  }

  private func close() {
    context.parked.failAll(ENODEV)
    context.files.releaseAll()
    context.operations.destroy()
    let wasDetached = state.withLock { $0.wasDetached }
    // libfuse goes by the path. So it must not try when the mount is gone: something else may be
    // mounted there by now. Without a device number, it looks whether the connection was cut.
    if !wasDetached && (mountedDevice == nil || isOurs()) { unsafe fuse_session_unmount(session) }
    unsafe fuse_session_destroy(session)
    unsafe SessionContext.release(userData)
  }
}
