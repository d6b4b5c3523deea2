// Memory for a process that writes what others free.
//
// A loop device on a file of ours has dirty pages that go away only when we have written them. If one of
// our threads needs memory meanwhile, and the kernel makes room by waiting for such a page, that wait
// has no end. It happens where the process and the user of the loop device share a memory limit: the
// kernel then looks for room among their own pages, and in a version 1 group it waits for writeback.
//
//     may we say that we serve I/O?       --> the kernel never waits so for us; nothing else to do
//     no limit but the machine's?         --> the kernel looks everywhere, and does not wait so
//     otherwise                           --> ask for no memory while serving
//
// The last takes four things. Program, stacks and heap are locked, so that nothing of them has to be
// read or found again. The heap has a reserve for what caches and tables grow by, and gives nothing
// back. All threads that serve are started at once (`ThreadStarting.atOnce` of Fuse). And images are read and
// written past the page cache (`HostFile.PageCache.avoided`), whose pages count against the limit too.
//
// Given up: a daemon that serves so much that its caches outgrow the reserve asks for memory again.

internal import CHost
internal import Glibc

/// What was done so that serving needs no memory that only serving can free.
package enum ServingMemory: Sendable, Equatable {
  /// The kernel knows that this process serves I/O (PR_SET_IO_FLUSHER).
  case knownToKernel
  /// There is no limit but the machine's.
  case unlimited
  /// Memory is kept ready: `reserve` bytes of `limit`; `lockFailure` says why it could not be locked.
  case kept(reserve: UInt64, limit: UInt64, lockFailure: SystemError?)

  /// Does what is needed, for a process that will serve with `threads`.
  ///
  /// It has one thread still, the one it began with: only that one's heap is one that all will share.
  package static func prepare(threads: Int, devices: Int) -> ServingMemory {
    // Threads inherit it.
    if chainfs_set_io_flusher() == 0 { return .knownToKernel }
    guard let limit = MemoryLimit.ofProcess() else { return .unlimited }
    let reserve = reserve(threads: threads, devices: devices, limit: limit)
    var failure: SystemError?
    do throws(SystemError) {
      // Heap first: what is locked then is there as a whole.
      try SystemCall.checking("malloc", chainfs_keep_heap(stackBytes, Int(reserve)))
      guard ResourceLimit.permitsLocking() else {
        throw SystemError(call: "mlockall", number: EPERM)
      }
      _ = try SystemCall.retrying("mlockall") { mlockall(MCL_CURRENT | MCL_FUTURE) }
    } catch { failure = error }
    return .kept(reserve: reserve, limit: limit, lockFailure: failure)
  }

  /// The stack of a thread. It is locked as a whole, and the system's 8 MiB are far too much for that.
  private static let stackBytes = 512 << 10

  /// Room for the buffers of the threads and the caches of the devices; a third of the limit and 256 MiB
  /// at most.
  static func reserve(threads: Int, devices: Int, limit: UInt64) -> UInt64 {
    let wanted = UInt64(threads) * 5 << 20 + UInt64(devices) * 16 << 20
    return min(wanted, limit / 3, 256 << 20)
  }

  /// A sentence for the log, and whether it is a warning; nil if there is nothing to tell.
  package var notice: (text: String, isWarning: Bool)? {
    switch self {
    case .knownToKernel, .unlimited: nil
    case .kept(let reserve, let limit, let failure):
      if let failure {
        (
          "memory is limited to \(limit) bytes and could not be locked (\(failure)); a loop device on "
            + "this mount may hang when it runs out: allow it to lock memory (ulimit -l unlimited)",
          true
        )
      } else {
        (
          "memory is limited to \(limit) bytes: \(reserve) are held ready, and images are read and "
            + "written past the page cache",
          false
        )
      }
    }
  }
}
