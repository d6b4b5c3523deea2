internal import CFuse
internal import HostSystem

/// What a session keeps for its callbacks, reached through libfuse's user data.
final class SessionContext: Sendable {
  let operations: any Operations
  private let writeback: WritebackCaching
  private let largestRead: Int
  let files = OpenFiles()
  let parked = ParkedReplies()

  init(_ operations: any Operations, _ options: SessionOptions) {
    self.operations = operations
    writeback = options.writeback
    largestRead = options.largestRead
  }

  /// Settles with the kernel what the connection does.
  func configure(_ connection: inout fuse_conn_info) {
    // The constants are Int32 in one libfuse and UInt in another.
    func set(_ capability: some BinaryInteger, _ wanted: Bool) {
      // Alive: libfuse's struct, for the length of the call.
      unsafe chainfs_want(&connection, UInt64(capability), wanted ? 1 : 0)
    }
    let largest = UInt32(SessionOptions.largestRequest)
    connection.max_write = largest
    connection.max_read = UInt32(largestRead)
    connection.max_readahead = largest
    // More requests of readahead and of asynchronous direct I/O in flight than the default of 12.
    connection.max_background = 64
    connection.congestion_threshold = 48
    // O_TRUNC comes as a change of size to 0, which can be answered with the size that stays. Sent
    // with the open, the kernel would take the file for empty without asking: it drops its dirty
    // pages, and goes by a size of 0 until somebody asks for the attributes (with writeback caching,
    // for good).
    set(FUSE_CAP_ATOMIC_O_TRUNC, false)
    set(FUSE_CAP_ASYNC_READ, true)
    set(FUSE_CAP_ASYNC_DIO, true)
    set(FUSE_CAP_PARALLEL_DIROPS, true)
    set(FUSE_CAP_WRITEBACK_CACHE, writeback == .enabled)
    // A page stays valid when its file's mtime changes: all changes come through this mount.
    set(FUSE_CAP_AUTO_INVAL_DATA, false)
    // Pipes cost more than they save here.
    set(FUSE_CAP_SPLICE_READ, false)
    set(FUSE_CAP_SPLICE_WRITE, false)
    set(FUSE_CAP_SPLICE_MOVE, false)
    // The kernel clears set-id bits itself, by a change of permissions.
    set(FUSE_CAP_HANDLE_KILLPRIV, false)
  }
}

/// The open files of a session.
///
/// The kernel hands back the number it got at open, and it is the file's address: no lookup for a
/// read. The table keeps each file alive from open to release, and knows at the end of the mount
/// which files the kernel never released (it drops releases when a connection is cut).
final class OpenFiles: Sendable {
  private let boxes = Monitor<[UInt64: OpenFileBox]>([:])

  /// How many opens have not been released.
  var count: Int { boxes.withLock { $0.count } }

  func add(_ file: any OpenFile) -> UInt64 {
    let box = OpenFileBox(file)
    let ticket = box.ticket
    boxes.withLock { $0[ticket] = box }
    return ticket
  }

  func remove(_ ticket: UInt64) -> (any OpenFile)? {
    boxes.withLock { $0.removeValue(forKey: ticket) }?.file
  }

  func releaseAll() {
    let left = boxes.withLock { boxes in
      defer { boxes = [:] }
      return boxes
    }
    for box in left.values { box.file.released() }
  }
}
