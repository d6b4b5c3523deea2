internal import Glibc
internal import HostSystem

/// The flags of an open file: those of open(2), as far as a file system acts on them.
///
/// They come with each read and write as well, since fcntl(F_SETFL) can change some of them.
package struct FileFlags: Hashable, Sendable {
  /// The flags as open(2) takes them.
  package let rawValue: Int32

  /// Wraps the flags of open(2).
  package init(rawValue: Int32) {
    self.rawValue = rawValue
  }

  /// The file can be written to through this open.
  package var allowsWriting: Bool { rawValue & O_ACCMODE != O_RDONLY }
  /// The file can be read through this open.
  package var allowsReading: Bool { rawValue & O_ACCMODE != O_WRONLY }
  /// A request that would wait is to fail with EAGAIN.
  package var isNonblocking: Bool { rawValue & O_NONBLOCK != 0 }
  /// A write is to be durable before it is answered. O_SYNC includes the bit of O_DSYNC.
  package var writesDurably: Bool { rawValue & O_DSYNC != 0 }
  /// Reads and writes go past the kernel's page cache.
  package var isDirect: Bool { rawValue & SystemCall.directFlag != 0 }
}

/// How the kernel treats what was opened.
package enum CachingMode: Sendable {
  /// Every read and write comes here: for files whose content has no fixed size, and for streaming.
  case direct
  /// Pages are cached, and what was cached by earlier opens is dropped.
  case cachedAfresh
  /// Pages are cached, and those of earlier opens stay valid.
  case cached
}

/// Whether a file has positions.
package enum Seeking: Sendable {
  case allowed
  /// lseek(2) fails with ESPIPE; offsets of reads count up all the same.
  case refused
}

/// What fsync(2) has to make durable.
package enum SyncScope: Sendable {
  /// Bytes, and what is needed to read them again.
  case data
  /// Times and owner as well.
  case everything
}

/// What fallocate(2) is to do to a range.
package enum AllocationRequest: Equatable, Sendable {
  /// Give the range space; what it reads stays. `keepsSize` forbids growing the file.
  case preallocate(keepsSize: Bool)
  /// Give the range's space back; it reads zero afterwards. The size is kept always.
  case punchHole
  /// Make the range read zero, and keep its space. `keepsSize` forbids growing the file.
  case zeroRange(keepsSize: Bool)
  /// Anything else: collapse, insert, unshare.
  case unknown(mode: Int32)

  /// FALLOC_FL_*, which Glibc's module leaves out (linux/falloc.h).
  private static let keepSize: Int32 = 0x01
  private static let punch: Int32 = 0x02
  private static let zero: Int32 = 0x10

  /// Reads the mode bits of fallocate(2).
  package init(mode: Int32) {
    switch mode {
    case 0: self = .preallocate(keepsSize: false)
    case Self.keepSize: self = .preallocate(keepsSize: true)
    case Self.punch | Self.keepSize: self = .punchHole
    case Self.zero: self = .zeroRange(keepsSize: false)
    case Self.zero | Self.keepSize: self = .zeroRange(keepsSize: true)
    default: self = .unknown(mode: mode)
    }
  }
}

/// What lseek(2) looks for; the other forms are the kernel's own.
package enum SeekTarget: Sendable {
  /// The next byte that is stored.
  case data
  /// The next byte that is not, or the end.
  case hole
}

/// What poll(2) reports of a file.
package struct Readiness: OptionSet, Sendable {
  package let rawValue: UInt32

  /// A set from the bits of poll(2).
  package init(rawValue: UInt32) {
    self.rawValue = rawValue
  }

  /// A read would not wait.
  package static let readable = Readiness(rawValue: UInt32(POLLIN | POLLRDNORM))
  /// A write would not wait.
  package static let writable = Readiness(rawValue: UInt32(POLLOUT | POLLWRNORM))
  /// Nothing will come any more.
  package static let hungUp = Readiness(rawValue: UInt32(POLLHUP))
}
