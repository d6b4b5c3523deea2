internal import CFuse
internal import Glibc
internal import HostSystem

// The threads by which libfuse serves FUSE over io_uring.
//
// The kernel and libfuse agree on it with the first request of a session. While that is served, libfuse
// starts a thread for each processor, tied to it, with a ring that the kernel puts requests of that
// processor into. They call the operations as the workers do. From then on the workers get what has no
// ring: interrupts and forgets.
//
// libfuse ends these threads in its own loop only, which is not ours, and it does so by cancelling them,
// in whatever they are serving. So they are made to leave before: they wait in io_uring_enter(2), from
// which a signal wakes them, and find that the session has ended. What they are is told by their name,
// and whose by when they came: one session at a time is at its first request.

/// The threads of a session's rings.
struct RingThreads {
  /// There have been any.
  let wereStarted: Bool
  private var left: Set<pid_t>

  /// Libfuse can, and its threads can be found.
  static var arePossible: Bool {
    // Alive: the path's bytes are for the call only.
    unsafe chainfs_library_has_rings() != 0 && access(tasks, R_OK | X_OK) == 0
  }

  /// How many requests a ring has in hand at once.
  static let placesOfRing = 16

  private static let tasks = "/proc/self/task"
  private static let isStarting = Monitor(())

  /// Runs `body`, which serves the first request, and gives the threads that libfuse started in it.
  static func started(in body: () -> Void) -> RingThreads {
    isStarting.withLock { _ in
      let earlier = all()
      body()
      return RingThreads(left: all().subtracting(earlier))
    }
  }

  private init(left: Set<pid_t>) {
    self.left = left
    wereStarted = !left.isEmpty
  }

  /// Wakes those that are left, after the session has been told to end; true once there are none.
  mutating func haveEnded() -> Bool {
    if left.isEmpty { return true }
    left.formIntersection(Self.all())
    for thread in left { tgkill(getpid(), thread, SIGURG) }
    return left.isEmpty
  }

  /// The threads of all rings in this process.
  private static func all() -> Set<pid_t> {
    do throws(SystemError) {
      let threads = try SystemCall.names(inDirectory: tasks).compactMap { pid_t($0) }
      return Set(threads.filter(isOfRing))
    } catch {
      // Without a list of threads nothing is known of rings, and they stay until the process ends.
      return []
    }
  }

  private static func isOfRing(_ thread: pid_t) -> Bool {
    do throws(SystemError) {
      return try MountTable.readAll("\(tasks)/\(thread)/comm").hasPrefix("fuse-ring-")
    } catch {
      // It has ended meanwhile.
      return false
    }
  }
}
