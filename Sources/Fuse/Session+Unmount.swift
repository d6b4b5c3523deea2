internal import CFuse
internal import Glibc
internal import HostSystem

// Unmounting from inside.
//
// In order: requests that are held (RequestHold) go on, since with writeback caching what they wait to
// write was promised to its writer already; what the kernel holds of dirty pages is written (the
// workers serve those writes), then the mount is taken away as umount(8) does. If files are open, it is
// detached, so that nobody opens more, and the loop is ended; those who have files open get errors from
// then on. A second request skips the writing, for an owner who does not want to wait for a slow or
// hanging disk.
//
// All of this is done on a thread of its own: the request may come from a signal, or from a request
// that a worker serves, and neither can wait. The thread uses system calls that ask the file system
// (open, syncfs); they end at the latest when `run` closes the connection, and `run` joins the thread
// after that.

extension FuseSession {
  /// Asks for the end: `run` returns soon after. A second request does not wait for dirty pages to be
  /// written. Further ones change nothing. May come before `run`, and from any thread.
  package func requestUnmount() {
    let (isServing, requests) = state.withLock { state in
      state.requests += 1
      if case .serving = state.phase { return (true, state.requests) }
      return (false, state.requests)
    }
    // Before `run`, the request is kept for it; after, there is nothing to do.
    if isServing, requests <= 2 { startUnmounter(inOrder: requests == 1) }
  }

  func startUnmounter(inOrder: Bool) {
    do throws(SystemError) {
      let worker = try Worker(name: "unmount") { [self] in
        if inOrder { writeBackAndUnmount() } else { endLoop() }
      }
      state.withLock { $0.unmounters.append(worker) }
    } catch {
      // No thread to be had: end without writing back what only the kernel has. The files' own bytes
      // are flushed by `destroy` all the same.
      endLoop()
    }
  }

  private func writeBackAndUnmount() {
    context.operations.unmounting()
    guard isOurs() else { return endLoop() }
    writeBack()
    // The state is changed first: once the mount is gone, `run` may be over before this thread goes
    // on, and must not unmount by the path what somebody else mounted there since.
    state.withLock { $0.wasDetached = true }
    if detach(Self.noFollow) == 0 { return }
    if errno == EBUSY, detach(Self.noFollow | Self.lazily) == 0 { return endLoop() }
    // Not root: libfuse asks fusermount3 to do it, when the loop has ended.
    state.withLock { $0.wasDetached = false }
    endLoop()
  }

  /// What is mounted at the path is still this session's.
  func isOurs() -> Bool {
    do throws(SystemError) {
      guard let mountedDevice else { return false }
      return try MountTable.entry(at: mountPoint.path)?.device == mountedDevice
    } catch {
      return false
    }
  }

  private func writeBack() {
    let number = openPath(mountPoint.path, O_RDONLY | O_DIRECTORY | O_CLOEXEC)
    if number < 0 { return }
    // An error of a page belongs to those who wrote it; fsync(2) and close(2) tell them.
    _ = syncfs(number)
    _ = Glibc.close(number)
  }

  /// Flags of umount2(2).
  private static let noFollow = Int32(UMOUNT_NOFOLLOW)
  private static let lazily = Int32(MNT_DETACH)

  private func detach(_ flags: Int32) -> Int32 {
    // Alive: the path's bytes are for the call only.
    unsafe umount2(mountPoint.path, flags)
  }
}
