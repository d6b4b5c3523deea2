/// The number by which the kernel names a file of this mount.
package struct InodeNumber: Hashable, Sendable {
  /// The number as it goes over the wire.
  package let rawValue: UInt64

  /// Names a file by its number.
  package init(_ rawValue: UInt64) {
    self.rawValue = rawValue
  }

  /// The root directory of the mount; FUSE fixes its number.
  package static let root = InodeNumber(1)
}

/// What sort of thing an inode is.
package enum FileKind: Hashable, Sendable {
  case regular
  case directory
  case symbolicLink
}

/// A moment as a file carries it.
package struct FileTime: Hashable, Sendable {
  /// Seconds since 1970.
  package var seconds: Int
  /// Nanoseconds past the second, 0 to 999999999.
  package var nanoseconds: Int

  /// A moment from its two parts.
  package init(seconds: Int, nanoseconds: Int = 0) {
    self.seconds = seconds
    self.nanoseconds = nanoseconds
  }
}

/// What stat(2) tells about a file.
package struct FileAttributes: Equatable, Sendable {
  /// The file's number.
  package var inode: InodeNumber
  /// What it is.
  package var kind: FileKind
  /// The twelve permission bits; the kind's bits are added when this is sent.
  package var permissions: UInt32
  /// Names that lead here; 1 for a file, 2 and more for a directory.
  package var linkCount: UInt64 = 1
  /// The owner.
  package var userID: UInt32 = 0
  /// The group.
  package var groupID: UInt32 = 0
  /// Length in bytes.
  package var size: UInt64 = 0
  /// What the file takes up, in units of 512 bytes whatever `preferredSize` says.
  package var allocatedSectors: UInt64 = 0
  /// st_blksize: the size in which the file likes to be read and written.
  package var preferredSize: UInt32 = 4096
  /// When it was last read.
  package var accessed = FileTime(seconds: 0)
  /// When its bytes last changed.
  package var modified = FileTime(seconds: 0)
  /// When these attributes last changed.
  package var changed = FileTime(seconds: 0)

  /// Attributes with everything else at its default.
  package init(inode: InodeNumber, kind: FileKind, permissions: UInt32) {
    self.inode = inode
    self.kind = kind
    self.permissions = permissions
  }
}

/// What a client wants changed: chmod, chown, truncate and utimens in one. `nil` means untouched.
package struct AttributeChange: Equatable, Sendable {
  /// A time to be set.
  package enum Time: Equatable, Sendable {
    /// The moment at which the change is made.
    case now
    /// The moment given by the client.
    case at(FileTime)
  }

  /// The new permission bits.
  package var permissions: UInt32?
  /// The new owner.
  package var userID: UInt32?
  /// The new group.
  package var groupID: UInt32?
  /// The new length: truncate(2), ftruncate(2), and O_TRUNC of an open that has succeeded.
  package var size: UInt64?
  /// The change came through an open file: a size of 0 is then an ftruncate(2), and else O_TRUNC or
  /// truncate(2), which nobody can tell apart.
  package var isThroughFile = false
  /// The new time of the last read.
  package var accessed: Time?
  /// The new time of the last write.
  package var modified: Time?
  /// The new time of the last change; sent by the kernel with writeback caching only.
  package var changed: Time?

  /// A change that changes nothing.
  package init() {}
}

/// What statfs(2) tells.
package struct FilesystemStatistics: Equatable, Sendable {
  /// The unit of the three block counts.
  package var blockSize: UInt64
  /// All blocks.
  package var blocks: UInt64
  /// Blocks that are free.
  package var freeBlocks: UInt64
  /// Blocks that are free to users without privilege.
  package var availableBlocks: UInt64
  /// Inodes there can be; 0 where this says nothing.
  package var files: UInt64 = 0
  /// Inodes that are free.
  package var freeFiles: UInt64 = 0
  /// The longest name.
  package var nameLength: UInt64 = 255

  /// Statistics without inode counts.
  package init(blockSize: UInt64, blocks: UInt64, freeBlocks: UInt64, availableBlocks: UInt64) {
    self.blockSize = blockSize
    self.blocks = blocks
    self.freeBlocks = freeBlocks
    self.availableBlocks = availableBlocks
  }
}

/// How long the kernel may believe an answer without asking again.
package struct Validity: Equatable, Sendable {
  /// The time in seconds, as FUSE counts it.
  package let seconds: Double

  /// Believe nothing: ask every time.
  package static let none = Validity(seconds: 0)
  /// Believe it as long as the mount lives (a year, which the kernel does not overflow on).
  package static let lasting = Validity(seconds: 31_536_000)

  /// A validity of so many seconds.
  package init(seconds: Double) {
    self.seconds = seconds
  }
}

/// Who sent a request. All zero for what the kernel sends on its own behalf, as writeback.
package struct Caller: Equatable, Sendable {
  /// The user.
  package let userID: UInt32
  /// The main group.
  package let groupID: UInt32
  /// The thread.
  package let threadID: Int32
}
