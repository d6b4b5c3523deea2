internal import CHost
internal import Glibc

/// What the host says about a file.
package struct FileStatus: Sendable, Hashable {
  /// What sort of thing the file is, as far as images care.
  package enum Sort: Sendable, Hashable {
    /// Bytes in a file system.
    case regular
    /// A disk or a part of one.
    case blockDevice
    /// A directory.
    case directory
    /// Anything else.
    case other
  }

  /// What it is.
  package var sort: Sort
  /// The device that holds it.
  package var device: UInt64
  /// Its number there.
  package var inode: UInt64
  /// The device that a device file stands for.
  package var represented: UInt64
  /// Its length; of a block device, the disk's.
  package var size: UInt64
  /// The bytes that it takes up.
  package var allocatedBytes: UInt64
  /// Who may do what with it.
  package var permissions: UInt32
}

/// How much a file system holds and has left, in its own blocks.
package struct FileSystemStatistics: Sendable, Hashable {
  /// Bytes in a block.
  package var blockSize: UInt64
  /// Blocks in all.
  package var blocks: UInt64
  /// Blocks that are free.
  package var freeBlocks: UInt64
  /// Blocks that are free to everybody.
  package var availableBlocks: UInt64
  /// Inodes in all.
  package var files: UInt64
  /// Inodes that are free.
  package var freeFiles: UInt64
  /// The longest name.
  package var longestName: UInt64
}

extension SystemCall {
  /// open(2), with O_CLOEXEC always added.
  package static func open(
    _ path: String, flags: Int32, mode: UInt32 = 0
  ) throws(SystemError) -> OwnedDescriptor {
    try checkPath(path, for: "open")
    // Alive: the path's bytes are for the call only.
    let raw = try retrying("open") { unsafe chainfs_open(path, flags | O_CLOEXEC, mode) }
    return OwnedDescriptor(taking: raw)
  }

  /// Finds the file that `path` leads to and keeps hold of it without opening it: no device notices,
  /// and what takes the path's place later does not matter.
  package static func find(_ path: String) throws(SystemError) -> OwnedDescriptor {
    try open(path, flags: chainfs_o_path)
  }

  /// Opens the very file that was found, whatever its path leads to by now.
  package static func open(
    found descriptor: Int32, flags: Int32
  ) throws(SystemError) -> OwnedDescriptor {
    try open("/proc/self/fd/\(descriptor)", flags: flags)
  }

  /// O_DIRECT, which Glibc's module leaves out.
  package static var directFlag: Int32 { chainfs_o_direct }

  /// A second open file of the same inode that passes the page cache by, nil where that is not to be had.
  package static func openDirect(
    sameAs descriptor: Int32, forWriting: Bool
  ) -> OwnedDescriptor? {
    let path = "/proc/self/fd/\(descriptor)"
    let access = forWriting ? O_RDWR : O_RDONLY
    do throws(SystemError) {
      return try open(path, flags: access | O_NONBLOCK | directFlag)
    } catch {
      return nil
    }
  }

  /// The alignments in memory and in the file that direct I/O wants; zeroes if it is not possible,
  /// nil if the kernel does not tell.
  package static func directAlignment(
    of descriptor: Int32
  ) -> (memory: UInt32, offset: UInt32)? {
    var memory: UInt32 = 0
    var offset: UInt32 = 0
    // Alive: both are locals.
    return unsafe chainfs_direct_io_alignment(descriptor, &memory, &offset) == 0
      ? (memory, offset) : nil
  }

  /// Reads until `buffer` is full or the file ends; gives how many bytes there were.
  package static func read(
    _ descriptor: Int32, into buffer: inout MutableRawSpan, at offset: UInt64
  ) throws(SystemError) -> Int {
    let wanted = buffer.byteCount
    // Alive: inside the span's own closure. In bounds: `done` never passes the count.
    return try unsafe buffer.withUnsafeMutableBytes { bytes throws(SystemError) -> Int in
      var done = 0
      while done < wanted, let start = bytes.baseAddress {
        let count = try retrying("read") {
          unsafe pread(descriptor, start + done, wanted - done, off_t(offset) + done)
        }
        if count == 0 { break }
        done += count
      }
      return done
    }
  }

  /// Reads whole units until `buffer` is full or the file ends, which it may do inside a unit.
  ///
  /// For direct I/O: what follows a part of a unit is not asked for.
  package static func readUnits(
    _ descriptor: Int32, into buffer: inout MutableRawSpan, at offset: UInt64, unit: Int
  ) throws(SystemError) -> Int {
    let wanted = buffer.byteCount
    // Alive: inside the span's own closure. In bounds: `done` never passes the count.
    return try unsafe buffer.withUnsafeMutableBytes { bytes throws(SystemError) -> Int in
      var done = 0
      while done < wanted, done.isMultiple(of: unit), let start = bytes.baseAddress {
        let count = try retrying("read") {
          unsafe pread(descriptor, start + done, wanted - done, off_t(offset) + done)
        }
        if count == 0 { break }
        done += count
      }
      return done
    }
  }

  /// Reads what comes next from a pipe, a terminal or a file; 0 is its end.
  package static func readNext(
    _ descriptor: Int32, into buffer: inout MutableRawSpan
  ) throws(SystemError) -> Int {
    // Alive: inside the span's own closure. In bounds: the count is the buffer's.
    try unsafe buffer.withUnsafeMutableBytes { bytes throws(SystemError) -> Int in
      try retrying("read") { unsafe Glibc.read(descriptor, bytes.baseAddress, bytes.count) }
    }
  }

  /// Writes all of `bytes`.
  package static func write(
    _ descriptor: Int32, _ bytes: RawSpan, at offset: UInt64
  ) throws(SystemError) {
    // Alive: inside the span's own closure. In bounds: `done` never passes the count.
    try unsafe bytes.withUnsafeBytes { bytes throws(SystemError) in
      var done = 0
      while done < bytes.count, let start = bytes.baseAddress {
        let count = try retrying("write") {
          unsafe pwrite(descriptor, start + done, bytes.count - done, off_t(offset) + done)
        }
        // A file that takes nothing and reports nothing would hold us here for good.
        if count == 0 { throw SystemError(call: "write", number: EIO) }
        done += count
      }
    }
  }

  /// fdatasync(2): the bytes and what is needed to find them are durable.
  package static func synchronizeData(_ descriptor: Int32) throws(SystemError) {
    _ = try retrying("fdatasync") { fdatasync(descriptor) }
  }

  /// fsync(2): the file is durable, or the names in a directory.
  package static func synchronize(_ descriptor: Int32) throws(SystemError) {
    _ = try retrying("fsync") { fsync(descriptor) }
  }

  /// ftruncate(2).
  package static func truncate(_ descriptor: Int32, to size: UInt64) throws(SystemError) {
    _ = try retrying("ftruncate") { ftruncate(descriptor, off_t(size)) }
  }

  /// What fallocate(2) is asked for.
  package enum Allocation: Sendable {
    /// Room, and the file grows to hold it.
    case reserve
    /// A hole inside the file.
    case punch
    /// Zeroes, and the file grows to hold them.
    case zero
  }

  /// fallocate(2).
  package static func allocate(
    _ descriptor: Int32, _ what: Allocation, at offset: UInt64, length: UInt64
  ) throws(SystemError) {
    let mode =
      switch what {
      case .reserve: Int32(0)
      case .punch: chainfs_falloc_punch_hole | chainfs_falloc_keep_size
      case .zero: chainfs_falloc_zero_range
      }
    _ = try retrying("fallocate") {
      chainfs_fallocate(descriptor, mode, Int64(offset), Int64(length))
    }
  }

  /// The first byte from `offset` on that is data; nil if there is none.
  package static func seekData(
    _ descriptor: Int32, from offset: UInt64
  ) throws(SystemError) -> UInt64? {
    try seek(descriptor, from: offset, whence: chainfs_seek_data)
  }

  /// The first byte from `offset` on that is in a hole, or the end; nil behind the end.
  package static func seekHole(
    _ descriptor: Int32, from offset: UInt64
  ) throws(SystemError) -> UInt64? {
    try seek(descriptor, from: offset, whence: chainfs_seek_hole)
  }

  private static func seek(
    _ descriptor: Int32, from offset: UInt64, whence: Int32
  ) throws(SystemError) -> UInt64? {
    do throws(SystemError) {
      return UInt64(try retrying("lseek") { lseek(descriptor, off_t(offset), whence) })
    } catch {
      if error.number == ENXIO { return nil }
      throw error
    }
  }

  /// FICLONERANGE: both files share the blocks from now on, until one writes.
  package static func cloneRange(
    from source: Int32, at sourceOffset: UInt64, to target: Int32, at offset: UInt64, length: UInt64
  ) throws(SystemError) {
    _ = try retrying("FICLONERANGE") {
      chainfs_clone_range(source, sourceOffset, target, offset, length)
    }
  }

  /// What the host says about an open file.
  package static func status(of descriptor: Int32) throws(SystemError) -> FileStatus {
    var answer = try status(ofFound: descriptor)
    if answer.sort == .blockDevice {
      var bytes: UInt64 = 0
      // Alive: the call fills one number, this local.
      _ = try retrying("BLKGETSIZE64") { unsafe chainfs_block_device_size(descriptor, &bytes) }
      answer.size = bytes
    }
    return answer
  }

  /// What the host says about a file that was found or opened; a block device's size is not asked.
  package static func status(ofFound descriptor: Int32) throws(SystemError) -> FileStatus {
    var status = stat()
    // Alive: the call fills one stat, this local.
    _ = try retrying("fstat") { unsafe fstat(descriptor, &status) }
    return FileStatus(status)
  }

  /// What the host says about the file that `path` leads to; a block device's size is not asked.
  package static func status(ofPath path: String) throws(SystemError) -> FileStatus {
    try checkPath(path, for: "stat")
    var status = stat()
    // Alive: the call fills one stat, this local; the path's bytes are for the call only.
    _ = try retrying("stat") { unsafe stat(path, &status) }
    return FileStatus(status)
  }

  /// How full the file system at `path` is.
  package static func fileSystem(at path: String) throws(SystemError) -> FileSystemStatistics {
    try checkPath(path, for: "statvfs")
    var found = statvfs()
    // Alive: the call fills one statvfs, this local; the path's bytes are for the call only.
    _ = try retrying("statvfs") { unsafe statvfs(path, &found) }
    return FileSystemStatistics(
      blockSize: UInt64(found.f_frsize), blocks: UInt64(found.f_blocks),
      freeBlocks: UInt64(found.f_bfree), availableBlocks: UInt64(found.f_bavail),
      files: UInt64(found.f_files), freeFiles: UInt64(found.f_ffree),
      longestName: UInt64(found.f_namemax))
  }

  /// rename(2).
  package static func rename(_ old: String, to new: String) throws(SystemError) {
    try checkPath(old, for: "rename")
    try checkPath(new, for: "rename")
    // Alive: the paths' bytes are for the call only.
    _ = try retrying("rename") { unsafe Glibc.rename(old, new) }
  }

  /// unlink(2).
  package static func unlink(_ path: String) throws(SystemError) {
    try checkPath(path, for: "unlink")
    // Alive: the path's bytes are for the call only.
    _ = try retrying("unlink") { unsafe Glibc.unlink(path) }
  }

  /// The names in a directory, in no order, without `.` and `..`; names that are not UTF-8 are mended.
  package static func names(inDirectory path: String) throws(SystemError) -> [String] {
    try checkPath(path, for: "opendir")
    // Alive: the path's bytes are for the call only.
    let directory = try unsafe retryingUntilThere("opendir") { unsafe opendir(path) }
    // Alive: opened above, closed nowhere else.
    defer { unsafe closedir(directory) }
    var names: [String] = []
    // Alive: an entry and its name are valid until the next call with this directory.
    while let entry = unsafe readdir(directory) {
      let name = unsafe String(cString: chainfs_entry_name(entry))
      if name != "." && name != ".." { names.append(name) }
    }
    return names
  }
}

extension SystemCall {
  /// Takes a shared OFD lock on one byte, as QEMU does.
  package static func shareByte(_ descriptor: Int32, _ byte: Int64) throws(SystemError) {
    _ = try retrying("fcntl") { chainfs_ofd_share(descriptor, byte) }
  }

  /// Gives a lock on one byte back.
  package static func unlockByte(_ descriptor: Int32, _ byte: Int64) throws(SystemError) {
    _ = try retrying("fcntl") { chainfs_ofd_unlock(descriptor, byte) }
  }

  /// Another open file has a lock on this byte.
  package static func isByteHeldElsewhere(
    _ descriptor: Int32, _ byte: Int64
  ) throws(SystemError) -> Bool {
    var holder: pid_t = 0
    // Alive: the call fills one number, this local.
    return try retrying("fcntl") { unsafe chainfs_ofd_test(descriptor, byte, &holder) } == 1
  }
}

extension FileStatus {
  fileprivate init(_ status: stat) {
    let sort: Sort =
      switch status.st_mode & S_IFMT {
      case S_IFREG: .regular
      case S_IFBLK: .blockDevice
      case S_IFDIR: .directory
      default: .other
      }
    self.init(
      sort: sort, device: UInt64(status.st_dev), inode: UInt64(status.st_ino),
      represented: UInt64(status.st_rdev), size: UInt64(max(0, status.st_size)),
      allocatedBytes: UInt64(max(0, status.st_blocks)) * 512,
      permissions: UInt32(status.st_mode & 0o777))
  }
}
