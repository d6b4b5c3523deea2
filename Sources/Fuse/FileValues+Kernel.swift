internal import CFuse
internal import Glibc

extension FileKind {
  /// The kind's bits of st_mode.
  var modeBits: mode_t {
    switch self {
    case .regular: S_IFREG
    case .directory: S_IFDIR
    case .symbolicLink: S_IFLNK
    }
  }
}

extension FileTime {
  var asTimespec: timespec { timespec(tv_sec: seconds, tv_nsec: nanoseconds) }

  init(_ time: timespec) {
    self.init(seconds: time.tv_sec, nanoseconds: time.tv_nsec)
  }
}

extension FileAttributes {
  var asStat: stat {
    var result = stat()
    result.st_ino = ino_t(inode.rawValue)
    result.st_mode = kind.modeBits | permissions & 0o7777
    result.st_nlink = nlink_t(linkCount)
    result.st_uid = userID
    result.st_gid = groupID
    result.st_size = off_t(clamping: size)
    result.st_blocks = blkcnt_t(clamping: allocatedSectors)
    result.st_blksize = blksize_t(preferredSize)
    result.st_atim = accessed.asTimespec
    result.st_mtim = modified.asTimespec
    result.st_ctim = changed.asTimespec
    return result
  }
}

extension AttributeChange {
  /// Reads what FUSE_SET_ATTR_* says is meant. The bit for "now" comes together with the one for
  /// the time itself and takes precedence.
  init(_ attributes: stat, setting bits: Int32, isThroughFile: Bool) {
    func sets(_ bit: Int32) -> Bool { bits & bit != 0 }
    self.isThroughFile = isThroughFile
    if sets(FUSE_SET_ATTR_MODE) { permissions = attributes.st_mode & 0o7777 }
    if sets(FUSE_SET_ATTR_UID) { userID = attributes.st_uid }
    if sets(FUSE_SET_ATTR_GID) { groupID = attributes.st_gid }
    // The kernel checks that a size is not negative.
    if sets(FUSE_SET_ATTR_SIZE) { size = UInt64(clamping: attributes.st_size) }
    if sets(FUSE_SET_ATTR_ATIME) { accessed = .at(FileTime(attributes.st_atim)) }
    if sets(FUSE_SET_ATTR_MTIME) { modified = .at(FileTime(attributes.st_mtim)) }
    if sets(FUSE_SET_ATTR_CTIME) { changed = .at(FileTime(attributes.st_ctim)) }
    if sets(FUSE_SET_ATTR_ATIME_NOW) { accessed = .now }
    if sets(FUSE_SET_ATTR_MTIME_NOW) { modified = .now }
  }
}

extension FilesystemStatistics {
  var asStatvfs: statvfs {
    var result = statvfs()
    result.f_bsize = UInt(blockSize)
    result.f_frsize = UInt(blockSize)
    result.f_blocks = fsblkcnt_t(blocks)
    result.f_bfree = fsblkcnt_t(freeBlocks)
    result.f_bavail = fsblkcnt_t(availableBlocks)
    result.f_files = fsfilcnt_t(files)
    result.f_ffree = fsfilcnt_t(freeFiles)
    result.f_favail = fsfilcnt_t(freeFiles)
    result.f_namemax = UInt(nameLength)
    return result
  }
}
