// An image in a file of the host, or on one of its block devices.
//
// The file is open twice. Reads, tables and odd bytes go through the page cache. Data of the guest goes
// past it by O_DIRECT, in whole pages, where the file system can: a page cache write made while serving
// the kernel's writeback can wait for memory that only that writeback would free, and nothing
// ends that wait. Both doors lead to one inode, and the kernel keeps them coherent: a direct write first
// writes out, then drops, the cached pages of its range, under the inode's lock.
//
// Under a memory limit of this process's own, that is not enough. A page that is read or written through
// the cache is charged to the limit; at the limit the kernel makes room first, and may wait for pages of
// a loop device to be written that only we can write. So with `PageCache.avoided` everything takes the
// second door: reads by way of aligned memory, odd bytes by reading their sector, changing it and
// writing it back. Sectors in hand are claimed, so that two such writes cannot lose each other's bytes.
// What is written that way beside the asked bytes is what is there already, so a torn sector is no
// worse than before. One thing is left to the cache: the end of a file inside a sector, since a whole
// sector would make the file longer; a direct read or write of it sees what the cache has.
//
// A file that somebody else cuts short while it is open would read as zeroes behind its new end: wrong
// bytes, and a stream would make them lasting. So how far the file reached is remembered. What lies
// before that counts as data, and reading it fails where the file ends earlier by now.
//
// Locks are held on the buffered open file. Closing gives them back at once; the descriptors stay until
// the last user is gone, so a call in flight never meets a number that means another file by then.

internal import Glibc
internal import HostSystem
internal import Synchronization

/// A file or block device of the host, as storage.
package final class HostFile: BlockStorage {
  /// What the file is opened for.
  package enum Access: Sendable {
    /// Reading.
    case readOnly
    /// Reading and writing.
    case readWrite
  }

  /// Whether others are kept off.
  package enum Locking: Sendable {
    /// QEMU's locks, if the host has them.
    case qemu
    /// None: the caller knows better.
    case none
  }

  /// Whether the host's page cache is used.
  package enum PageCache: Sendable {
    /// For reads, tables and odd bytes.
    case used
    /// Not at all, where the file system can do without.
    case avoided
  }

  /// The largest offset of a byte behind a file's end.
  static let largestSize = UInt64(Int64.max)

  /// The name that it was opened by.
  package let path: String
  /// Which file it is.
  package let identity: StorageIdentity
  let sort: FileStatus.Sort
  let descriptor: OwnedDescriptor
  let direct: DirectIO?
  let flushes = SharedFlush()
  let pageCache: PageCache
  let claims = SectorClaims()

  let wasOpenedForWriting: Bool
  private let locking: Locking
  let lock: Monitor<ImageLock>
  // Relaxed: a refusal needs no order with the bytes; who changes roles keeps writers off by itself.
  private let refusesWrites: Atomic<Bool>
  private let isStopped = Atomic(false)
  /// How far the file reached when it was opened, or was made to reach since. Stored with release after
  /// the bytes are there and loaded with acquire before they are asked for: who finds the file
  /// shorter than what it loaded has met a foreign hand, not a writer of its own.
  let reach: Atomic<UInt64>
  // Relaxed: a number for people, which stands still but for writes that go further than all before.
  private let written = Atomic<UInt64>(0)
  // Set once the file system turned a direct write down that it should have taken. Relaxed: seeing it
  // late costs one more refused call.
  let isDirectRefused = Atomic(false)

  /// Opens what is at `path` and takes the locks of its role.
  ///
  /// An active file that is opened read-only is locked as a backing file.
  package static func open(
    _ path: String, access: Access, locking: Locking, role: StorageRole,
    pageCache: PageCache = .used
  ) throws(StorageError) -> HostFile {
    // Found before it is opened: headers name files, and some devices act on being opened alone.
    let found = try calling(path) { () throws(SystemError) in try SystemCall.find(path) }
    let raw = found.raw
    let sort = try calling(path) { () throws(SystemError) in
      try SystemCall.status(ofFound: raw).sort
    }
    guard sort == .regular || sort == .blockDevice else { throw .notAFile(path: path) }
    let flags = (access == .readWrite ? O_RDWR : O_RDONLY) | O_NOCTTY | O_NONBLOCK
    let descriptor = try calling(path) { () throws(SystemError) in
      try SystemCall.open(found: raw, flags: flags)
    }
    return try HostFile(path, descriptor, access, locking, role, pageCache)
  }

  /// Makes a new empty file, which must not be there yet, and opens it as an active image.
  ///
  /// Its name is durable only after `SystemCall.flushDirectory(_:)`. If it throws, there is no file.
  package static func create(
    _ path: String, mode: UInt32 = 0o600, locking: Locking = .qemu, pageCache: PageCache = .used
  ) throws(StorageError) -> HostFile {
    let flags = O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_NOCTTY
    let descriptor = try calling(path) { () throws(SystemError) in
      try SystemCall.open(path, flags: flags, mode: mode)
    }
    do throws(StorageError) {
      return try HostFile(path, descriptor, .readWrite, locking, .active, pageCache)
    } catch {
      // What is left would be in the way of the next attempt.
      do throws(SystemError) { try SystemCall.unlink(path) } catch {
        // The first failure is what is told.
      }
      throw error
    }
  }

  init(
    _ path: String, _ descriptor: consuming OwnedDescriptor, _ access: Access,
    _ locking: Locking, _ role: StorageRole, _ pageCache: PageCache
  ) throws(StorageError) {
    let raw = descriptor.raw
    let status = try calling(path) { () throws(SystemError) in
      try SystemCall.status(of: raw)
    }
    guard status.sort == .regular || status.sort == .blockDevice else {
      throw .notAFile(path: path)
    }
    var held = ImageLock.none
    var locks = locking
    if locking == .qemu {
      let wanted = access == .readOnly ? ImageLock.backing : Self.lock(for: role)
      do throws(StorageError) {
        try held.change(to: wanted, descriptor: raw, path: path)
        held = wanted
      } catch {
        if !error.meansNoLocks { throw error }
        locks = .none
      }
    }
    self.path = path
    identity = StorageIdentity(device: status.device, inode: status.inode)
    sort = status.sort
    direct =
      access == .readWrite || pageCache == .avoided
      ? DirectIO(sameAs: raw, forWriting: access == .readWrite, beside: pageCache) : nil
    self.pageCache = pageCache
    wasOpenedForWriting = access == .readWrite
    self.locking = locks
    lock = Monitor(held)
    refusesWrites = Atomic(access == .readOnly || role == .backing)
    reach = Atomic(status.size)
    self.descriptor = descriptor
  }

  // A process that is being started shares the open file until it has become another program, and would
  // keep its locks for so long.
  deinit { close() }

  /// Writes are refused: opened so, or a backing file by now, or stopped, or closed.
  package var isReadOnly: Bool {
    refusesWrites.load(ordering: .relaxed) || isStopped.load(ordering: .relaxed)
  }

  /// Guest data passes the page cache by.
  package var usesDirectIO: Bool {
    direct != nil && !isDirectRefused.load(ordering: .relaxed)
  }

  /// Nothing passes through the page cache but what cannot do without.
  var avoidsPageCache: Bool { pageCache == .avoided && usesDirectIO }

  /// The unit by which writers claim what they write, nil where none of them reads it before. Does not
  /// change while the file is open: he who claimed a sector before a refusal still puts it back.
  var claimedUnit: UInt64? { pageCache == .avoided ? directUnit : nil }

  /// The file's length, or the disk's.
  package func size() throws(StorageError) -> UInt64 {
    try calling(path) { () throws(SystemError) in
      try SystemCall.status(of: descriptor.raw).size
    }
  }

  /// Where the open file lies now: its path from the root without symbolic links.
  package func location() throws(StorageError) -> String {
    try calling(path) { () throws(SystemError) in try SystemCall.path(of: descriptor.raw) }
  }

  /// Who may do what with the file.
  package func permissions() throws(StorageError) -> UInt32 {
    try calling(path) { () throws(SystemError) in
      try SystemCall.status(of: descriptor.raw).permissions
    }
  }

  /// Sets who may do what with the file, whatever the process's mask is.
  package func setPermissions(_ permissions: UInt32) throws(StorageError) {
    try calling(path) { () throws(SystemError) in
      try SystemCall.setPermissions(permissions, of: descriptor.raw)
    }
  }

  /// The bytes that the file takes up; of a block device, all of it.
  package func allocatedBytes() throws(StorageError) -> UInt64 {
    let status = try calling(path) { () throws(SystemError) in
      try SystemCall.status(of: descriptor.raw)
    }
    return sort == .blockDevice ? status.size : status.allocatedBytes
  }

  /// Refuses writes from now on, and gives back the locks that only a writer needs.
  package func becomeBacking() {
    // Order: nothing is written any more when others are told so.
    refusesWrites.store(true, ordering: .relaxed)
    giveBack(allBut: .backing)
  }

  /// Refuses writes from now on, whatever its role.
  package func refuseWrites() { isStopped.store(true, ordering: .relaxed) }

  /// Gives the locks back and refuses writes from now on.
  package func close() {
    refusesWrites.store(true, ordering: .relaxed)
    giveBack(allBut: .none)
  }

  private func giveBack(allBut kept: ImageLock) {
    // Lock: the role's own, across the system calls, so that two changes cannot mix.
    lock.withLock { held in held.giveBack(allBut: kept, descriptor: descriptor.raw) }
  }

  private static func lock(for role: StorageRole) -> ImageLock {
    switch role {
    case .active: .active
    case .backing: .backing
    }
  }

  /// The end of the last byte that was written.
  package var highestWritten: UInt64 { written.load(ordering: .relaxed) }

  /// Takes note of a write up to `end`.
  func wrote(_ end: UInt64) {
    if end > written.load(ordering: .relaxed) { written.max(end, ordering: .relaxed) }
    reached(end)
  }

  /// Takes note that the file has bytes up to `end`.
  func reached(_ end: UInt64) {
    if end > reach.load(ordering: .relaxed) { reach.max(end, ordering: .releasing) }
  }

  /// Throws if the file takes no writes or the range lies beyond what a file can hold.
  func checkWrite(at offset: HostOffset, length: UInt64) throws(StorageError) {
    if isReadOnly { throw .readOnly(path: path) }
    try checkRange(at: offset, length: length)
  }

  func checkRange(at offset: HostOffset, length: UInt64) throws(StorageError) {
    if length > Self.largestSize || offset.rawValue > Self.largestSize - length {
      throw .outOfRange(path: path, offset: offset, length: length)
    }
  }
}

/// Runs a system call on the file at `path`, and puts the path to its error.
func calling<Result: ~Copyable>(
  _ path: String, _ body: () throws(SystemError) -> Result
) throws(StorageError) -> Result {
  do throws(SystemError) { return try body() } catch { throw .system(path: path, error) }
}
