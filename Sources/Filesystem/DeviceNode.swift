internal import Chain
internal import Control
internal import Fuse
internal import Glibc
internal import HostSystem
internal import Synchronization

/// A device as a file: the disk, and the attributes that chmod, chown and touch change.
///
/// Those live as long as the mount.
final class DeviceNode: Sendable {
  let disk: Disk
  /// Where requests for its bytes wait.
  let hold: RequestHold
  private let times: any TimeSource
  private let failures: FailureLog
  private let owned: Monitor<Owned>
  /// Nanoseconds since 1970; set by every write, so they are no part of what the lock guards. touch(1)
  /// sets the first one too, and never the second: who looks for changes by ctime finds each write.
  private let modified: Atomic<Int64>
  private let written: Atomic<Int64>

  private struct Owned {
    var permissions: UInt32
    var userID: UInt32
    var groupID: UInt32
    var accessed: FileTime
    var changed: FileTime
  }

  init(
    disk: Disk, hold: RequestHold, owner: FileOwner, times: any TimeSource, failures: FailureLog
  ) {
    self.disk = disk
    self.hold = hold
    self.times = times
    self.failures = failures
    let now = times.wallTime()
    let time = FileTime(now)
    owned = Monitor(
      Owned(
        permissions: (disk.isReadOnly ? 0o400 : 0o600) & ~owner.modeMask, userID: owner.userID,
        groupID: owner.groupID, accessed: time, changed: time))
    modified = Atomic(now.nanosecondsSince1970)
    written = Atomic(now.nanosecondsSince1970)
  }

  /// What stat(2) tells.
  func attributes(_ inode: InodeNumber) throws(ChainError) -> FileAttributes {
    var attributes = FileAttributes(inode: inode, kind: .regular, permissions: 0)
    attributes.size = disk.virtualSize
    attributes.allocatedSectors = try disk.allocatedBytes() / 512
    attributes.preferredSize = UInt32(clamping: disk.clusterSize)
    attributes.modified = FileTime(nanosecondsSince1970: modified.load(ordering: .relaxed))
    let written = FileTime(nanosecondsSince1970: written.load(ordering: .relaxed))
    owned.withLock { owned in
      attributes.permissions = owned.permissions
      attributes.userID = owned.userID
      attributes.groupID = owned.groupID
      attributes.accessed = owned.accessed
      attributes.changed = owned.changed.isBefore(written) ? written : owned.changed
    }
    return attributes
  }

  /// Does what chmod, chown, touch and truncate ask; gives the errno of a refusal, 0 for none.
  func change(_ change: AttributeChange) -> Int32 {
    // O_TRUNC is ignored: `echo > vda` must not empty a disk. The answer tells the kernel the size
    // that stays; a truncate(2) to 0 looks the same here, and does as little.
    if change.size == 0, !change.isThroughFile { return 0 }
    if let permissions = change.permissions, disk.isReadOnly, permissions & 0o222 != 0 {
      return EROFS
    }
    if let size = change.size {
      let number = resize(to: size)
      if number != 0 { return number }
    }
    let now = FileTime(times.wallTime())
    owned.withLock { owned in
      if let permissions = change.permissions { owned.permissions = permissions & 0o7777 }
      if let user = change.userID { owned.userID = user }
      if let group = change.groupID { owned.groupID = group }
      if let time = change.accessed { owned.accessed = time.resolved(now) }
      owned.changed = now
    }
    if let time = change.modified?.resolved(now) {
      modified.store(
        Int64(time.seconds) * 1_000_000_000 + Int64(time.nanoseconds), ordering: .relaxed)
    }
    return 0
  }

  /// A disk does not change its size by accident: it may grow if it was mounted so, and the size that
  /// it has is no change.
  private func resize(to size: UInt64) -> Int32 {
    if size == disk.virtualSize { return 0 }
    guard disk.configuration.isGrowable, size > disk.virtualSize else { return EPERM }
    if disk.isReadOnly { return EROFS }
    if size % 512 != 0 { return EINVAL }
    do {
      try disk.grow(to: size)
      return 0
    } catch {
      // A refusal, as of a control write: what is too large is no broken disk.
      _ = number(of: error)
      return error.kind.commandErrno
    }
  }

  /// Notes that bytes have changed.
  func touch() {
    let now = times.wallTime().nanosecondsSince1970
    modified.store(now, ordering: .relaxed)
    written.store(now, ordering: .relaxed)
  }

  /// The errno of a failure, which is logged unless there were too many of late.
  func number(of failure: ChainError) -> Int32 {
    failures.note(failure, of: disk.name)
    return failure.kind.diskErrno
  }
}

/// Who owns the files of a mount.
struct FileOwner: Sendable {
  var userID: UInt32
  var groupID: UInt32
  /// Permission bits that no file has.
  var modeMask: UInt32
}

extension WallTime {
  fileprivate var nanosecondsSince1970: Int64 { seconds * 1_000_000_000 + Int64(nanoseconds) }
}

extension FileTime {
  /// The same moment.
  init(_ time: WallTime) {
    self.init(seconds: Int(time.seconds), nanoseconds: Int(time.nanoseconds))
  }

  fileprivate init(nanosecondsSince1970 time: Int64) {
    self.init(seconds: Int(time / 1_000_000_000), nanoseconds: Int(time % 1_000_000_000))
  }

  fileprivate func isBefore(_ other: FileTime) -> Bool {
    (seconds, nanoseconds) < (other.seconds, other.nanoseconds)
  }
}

extension AttributeChange.Time {
  fileprivate func resolved(_ now: FileTime) -> FileTime {
    switch self {
    case .now: now
    case .at(let time): time
    }
  }
}
