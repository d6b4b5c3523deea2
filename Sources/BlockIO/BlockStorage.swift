// The bytes of one image file, and what an image driver may ask of them.
//
// Everything above speaks to this protocol: the host's files in production, memory and a disk that
// loses what was not flushed in tests. Offsets are the file's own; clusters are unknown here.
//
// What is written is durable once a flush that began after the write has returned. A flush that fails
// stays failed: the kernel forgets which pages it could not write, so a second flush that says "fine"
// would be a lie.

package import HostSystem

/// What a write is for: it decides the way the bytes take.
package enum WriteIntent: Sendable {
  /// Bytes of the guest. They go past the host's page cache where the file system allows it.
  case data
  /// Tables and headers: small, and read again soon.
  case metadata
}

/// Which file a storage is, whatever name it was opened by.
package struct StorageIdentity: Hashable, Sendable {
  /// The device that holds the file.
  package var device: UInt64
  /// Its number there.
  package var inode: UInt64

  /// Names a file by device and inode.
  package init(device: UInt64, inode: UInt64) {
    self.device = device
    self.inode = inode
  }
}

/// How an image is used, which decides the locks that are held on it.
package enum StorageRole: Sendable, Equatable {
  /// The writable top of a chain: nobody else may write or resize it, or start to.
  case active
  /// Something that is read and must not change: others may read it as well.
  case backing
}

/// A file's bytes. All calls may be made by several threads at once.
package protocol BlockStorage: AnyObject, Sendable {
  /// The name that it was opened by.
  var path: String { get }
  /// Writes are refused.
  var isReadOnly: Bool { get }
  /// Which file it is.
  var identity: StorageIdentity { get }
  /// The end of the last byte that was written since it was opened, 0 if none was.
  var highestWritten: UInt64 { get }

  /// The file's length.
  func size() throws(StorageError) -> UInt64
  /// The bytes that the file takes up on its disk.
  func allocatedBytes() throws(StorageError) -> UInt64

  /// Fills `buffer` from the bytes at `offset` on, and gives how many there were before the end.
  ///
  /// Short only at the end of the file; bytes of `buffer` behind that are left as they were.
  func read(into buffer: inout MutableRawSpan, at offset: HostOffset) throws(StorageError) -> Int
  /// Writes all of `bytes`, at any alignment; the file grows as needed.
  func write(_ bytes: RawSpan, at offset: HostOffset, intent: WriteIntent) throws(StorageError)
  /// Makes a range read as zeroes and keeps it allocated where the host can; the file grows as needed.
  func writeZeroes(at offset: HostOffset, length: UInt64) throws(StorageError)
  /// Gives a range back to the host if it can take it; what the range reads as then is not promised.
  func discard(at offset: HostOffset, length: UInt64) throws(StorageError)
  /// Reserves room for a range without changing what it reads as; the file grows as needed.
  func allocate(at offset: HostOffset, length: UInt64) throws(StorageError)
  /// Makes the file exactly `size` bytes long; what is added reads as zeroes.
  func truncate(to size: UInt64) throws(StorageError)
  /// Makes every write that has returned durable. Once it has failed, it fails for good.
  func flush() throws(StorageError)

  /// The first byte from `offset` on that is not in a hole, nil if only a hole is left.
  func nextData(at offset: HostOffset) throws(StorageError) -> HostOffset?
  /// The first byte from `offset` on that is in a hole; the end of the file counts as one. Nil behind
  /// the end.
  func nextHole(at offset: HostOffset) throws(StorageError) -> HostOffset?
  /// Has the host let a range of this file share its blocks with a range of another file, so that no
  /// byte moves; the file grows as needed.
  ///
  /// Gives false if the host cannot for these two, and nothing has changed then. What the host cannot
  /// share is read and written: its own copying between files goes by way of the page cache, which
  /// nothing that serves a guest may wait for, and is no faster where that is no danger.
  func share(
    from source: any BlockStorage, at sourceOffset: HostOffset, to offset: HostOffset,
    length: UInt64
  ) throws(StorageError) -> Bool

  /// Makes an active file a backing file: refuses writes from now on, and gives back the locks that only
  /// a writer needs.
  ///
  /// Cannot fail, since what is given back meets nobody: a snapshot of several disks relies on it.
  func becomeBacking()
  /// Refuses writes from now on, and keeps the locks: for a file that must stay as it is, and that
  /// nobody else may take for whole.
  func refuseWrites()
  /// Lets go of the locks and refuses writes from now on. Flush first; the file is closed when the
  /// last user is gone. Closing again does nothing.
  func close()
}

extension BlockStorage {
  /// Writes all of `bytes` as data of the guest.
  package func write(_ bytes: RawSpan, at offset: HostOffset) throws(StorageError) {
    try write(bytes, at: offset, intent: .data)
  }

  /// Fills all of `buffer`; what lies behind the end of the file reads as zeroes.
  package func readZeroFilled(
    into buffer: inout MutableRawSpan, at offset: HostOffset
  ) throws(StorageError) {
    let found = try read(into: &buffer, at: offset)
    buffer.fillWithZeroes(found..<buffer.byteCount)
  }

  /// Fills all of `buffer`, and throws `.truncated` if the file ends inside it.
  package func readExactly(
    into buffer: inout MutableRawSpan, at offset: HostOffset
  ) throws(StorageError) {
    let wanted = buffer.byteCount
    let found = try read(into: &buffer, at: offset)
    if found < wanted {
      throw .truncated(path: path, offset: offset, wanted: wanted, found: found)
    }
  }

  /// The byte at `offset` lies in a hole, or behind the end of the file.
  package func isHole(at offset: HostOffset) throws(StorageError) -> Bool {
    try nextData(at: offset) != offset
  }
}
