internal import Glibc

/// What the system lets this process have of something.
package enum ResourceLimit {
  /// Allows as many open files as the system permits: a deep chain has two for each layer.
  package static func raiseOpenFiles() {
    _ = raised(RLIMIT_NOFILE)
  }

  /// The process may lock all of its memory, now and later.
  ///
  /// A number is no permission: once it is reached, memory that is asked for is refused.
  static func permitsLocking() -> Bool {
    isCapable(inStatus: SystemCall.text(of: "/proc/self/status"), of: 14)
      || raised(__RLIMIT_MEMLOCK) == UInt64.max
  }

  /// CapEff of /proc/self/status has the bit of a capability.
  static func isCapable(inStatus status: String?, of bit: UInt64) -> Bool {
    for line in status?.split(separator: "\n") ?? [] where line.hasPrefix("CapEff:\t") {
      guard let bits = UInt64(line.dropFirst(8), radix: 16) else { return false }
      return bits >> bit & 1 == 1
    }
    return false
  }

  /// Raises the soft limit to the hard one and gives what holds now; RLIM_INFINITY has all bits.
  private static func raised(_ resource: __rlimit_resource) -> UInt64 {
    let number = __rlimit_resource_t(resource.rawValue)
    var limit = rlimit()
    // Alive: both calls use this local, for their own length.
    guard unsafe getrlimit(number, &limit) == 0 else { return 0 }
    let before = limit.rlim_cur
    limit.rlim_cur = limit.rlim_max
    return UInt64(unsafe setrlimit(number, &limit) == 0 ? limit.rlim_cur : before)
  }
}

extension SystemCall {
  /// What a file of the kernel's tells; nil if it cannot be read.
  static func text(of path: String) -> String? {
    do throws(SystemError) {
      return try AtomicFile.contents(of: path, limit: 1 << 20).map {
        String(decoding: $0, as: UTF8.self)
      }
    } catch {
      // What is not told limits nothing, and permits nothing.
      return nil
    }
  }
}
