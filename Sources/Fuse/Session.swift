internal import CFuse
internal import Glibc
internal import HostSystem
internal import Synchronization

// A mount, from mount(2) to the last thread.
//
//     init --> mounted --- run() ---> serving ---> ended
//                  \--- deinit -----------------------^
//
// Threads. `run` is the caller's thread and only waits. The workers (RequestLoop.swift) are joined
// before the loop returns. A thread named `unmount` exists from the first `requestUnmount` to the end.
// Nothing of a session runs after `run` has returned.
//
// The end comes from two sides: umount(8) makes the kernel cut the connection, and for
// `requestUnmount` see Session+Unmount.swift.
//
// Order at the end: workers are joined; parked replies fail; open files that the kernel never
// released are released; `Operations.destroy` (no reply is left now: each holds a part of libfuse's
// session); libfuse's rings are taken down; the mount is taken away if it is still there, and the
// connection closed, which lets clients go that still wait; the session is freed.

/// A file system that is mounted and can be served.
///
/// Sendable, unchecked: libfuse's session is used by `run` and freed at its end under `state`, and
/// other threads reach it under `state` too.
@safe package final class FuseSession: @unchecked Sendable {
  enum Phase {
    case mounted
    case serving
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
  /// The number of its device, `0:53`; nil where the table of mounts does not tell.
  package let mountedDevice: String?
  private let session: OpaquePointer
  let context: SessionContext
  private let userData: UnsafeMutableRawPointer
  private let loop: RequestLoop

  /// Mounts. From here on requests wait until `run` serves them.
  package init(
    mountpoint: MountPoint, options: SessionOptions, operations: any Operations
  ) throws(FuseError) {
    mountPoint = mountpoint
    context = SessionContext(operations, options)
    unsafe userData = context.retainedUserData()
    let made = unsafe Self.makeSession(options.mountArguments, userData)
    guard let session = unsafe made.result else {
      unsafe SessionContext.release(userData)
      throw unsafe .optionsRefused(made.lines)
    }
    unsafe self.session = session
    loop = unsafe RequestLoop(
      session, parked: context.parked, threads: max(options.threads, 1), starting: options.starting)
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

  /// Requests come through io_uring; known once the first has been served.
  package var isServedByRings: Bool { loop.hasRings }

  /// Serves until the file system is unmounted, and returns when everything has ended. Once only.
  package func run() throws(FuseError) {
    let pending = state.change { state -> Bool in
      guard case .mounted = state.phase else { preconditionFailure("a session runs once") }
      state.phase = .serving
      return state.requests > 0
    }
    if pending { startUnmounter(inOrder: true) }
    let number = loop.run()
    // From here on nobody else touches the session.
    let unmounters = state.change { state in
      state.phase = .ended
      defer { state.unmounters = [] }
      return state.unmounters
    }
    close()
    // After the connection is closed: an unmounter may wait for an answer until then.
    for worker in unmounters { worker.join() }
    if number != 0 { throw .connectionLost(number: number) }
  }

  /// Has the kernel ask for the attributes of a file again when it next needs them.
  ///
  /// It asks nothing of its own and waits for no request, so any thread may call it. Under writeback
  /// caching the kernel goes by its own size and time all the same.
  package func forgetAttributes(of inode: InodeNumber) {
    state.withLock { state in
      guard case .serving = state.phase else { return }
      // A negative offset leaves the pages of the file alone: to take them away would wait for their
      // requests. A file that the kernel does not know has nothing to forget.
      // Alive: as above, under the lock.
      _ = unsafe fuse_lowlevel_notify_inval_inode(session, inode.rawValue, -1, 0)
    }
  }

  /// Ends the loop although the kernel is still connected.
  func endLoop() {
    state.withLock { state in
      // Alive: libfuse's session is there as long as the phase says so, under the lock.
      if case .serving = state.phase { loop.end() }
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
      return unsafe chainfs_session_new(
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

  private func close() {
    context.parked.abandonAll()
    context.files.releaseAll()
    context.operations.destroy()
    context.parked.finishAnswers()
    // Order: the threads of the rings have left, and no answer is left that would be written there. The
    // rings hold the connection open until they are gone.
    if loop.hasRings { unsafe chainfs_end_rings(session) }
    let wasDetached = state.withLock { $0.wasDetached }
    // libfuse goes by the path. So it must not try when the mount is gone: something else may be
    // mounted there by now. Without a device number, it looks whether the connection was cut.
    if !wasDetached && (mountedDevice == nil || isOurs()) { unsafe fuse_session_unmount(session) }
    unsafe fuse_session_destroy(session)
    unsafe SessionContext.release(userData)
  }
}
