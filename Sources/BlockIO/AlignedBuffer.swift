// Memory that a thread keeps.
//
// A request must not allocate, and O_DIRECT wants memory that starts on a page. Each thread has one
// buffer for each purpose, made at the first use, grown when a larger one is asked for, and freed
// when the thread ends (CHost's thread slots do that). The purposes are apart, so that a copy on write can
// inflate a cluster and bounce it to the disk without two of them meeting in one buffer; within one
// purpose a thread must not ask again while it is inside.

internal import Glibc
internal import HostSystem

/// The calling thread's own page-aligned buffers.
package enum ThreadScratch {
  /// What a buffer is for. One thread uses each for one thing at a time.
  package enum Purpose: Int32, Sendable {
    /// Bytes that are copied up around a write.
    case cow = 1
    /// Bytes that BlockIO itself moves to aligned memory.
    case bounce = 2
    /// Compressed bytes, or what becomes of them.
    case inflate = 3
    /// Bytes that are encrypted on their way to the disk, or decrypted on their way from it.
    case cipher = 4
    /// Bytes that a stream copies up; a cluster that has to move takes `cow` meanwhile.
    case stream = 5
  }

  /// The alignment of every buffer.
  package static let alignment = 4096

  /// Runs `body` with `byteCount` bytes of the calling thread, whose content is left over.
  ///
  /// The bytes start on a page. Asking for the same purpose again inside `body` stops the program.
  package static func withBuffer<Result: ~Copyable, Failure: Error>(
    _ purpose: Purpose, byteCount: Int,
    _ body: (inout MutableRawSpan) throws(Failure) -> Result
  ) throws(Failure) -> Result {
    let header = unsafe header(purpose, byteCount: byteCount)
    // Alive: the header and its bytes belong to this thread, which is here; `isInUse` keeps them
    // from being replaced until the end. In bounds: `capacity` covers byteCount.
    unsafe header.pointee.isInUse = true
    defer { unsafe header.pointee.isInUse = false }
    let start = unsafe UnsafeMutableRawPointer(header) + alignment
    var span = unsafe MutableRawSpan(_unsafeStart: start, byteCount: byteCount)
    return try body(&span)
  }

  /// The start of a buffer: one page that only says how much lies behind it.
  private struct Header {
    var capacity: Int
    var isInUse: Bool
  }

  private static func header(_ purpose: Purpose, byteCount: Int) -> UnsafeMutablePointer<Header> {
    precondition(byteCount >= 0)
    // Alive: only this thread puts memory into its slot, and only as made below.
    let kept = unsafe ThreadSlot.memory(purpose.rawValue)?.assumingMemoryBound(to: Header.self)
    if let kept = unsafe kept {
      precondition(unsafe !kept.pointee.isInUse, "a thread asked for the same scratch twice")
      if unsafe kept.pointee.capacity >= byteCount { return unsafe kept }
    }
    // Powers of two: a thread grows its buffer a few times in its life.
    let pages = (max(byteCount, 1) + alignment - 1) / alignment
    var capacity = alignment
    while capacity < pages * alignment { capacity *= 2 }
    // Alive: from the C allocator, since the slot gives it to free(). Touched now, so that a request
    // under memory pressure finds it there.
    guard let memory = unsafe aligned_alloc(alignment, alignment + capacity) else {
      fatalError("no memory for a thread's buffer of \(capacity) bytes")
    }
    unsafe memset(memory, 0, alignment + capacity)
    let made = unsafe memory.bindMemory(to: Header.self, capacity: 1)
    unsafe made.initialize(to: Header(capacity: capacity, isInUse: false))
    // Alive: the slot frees what it held before and owns the new memory from here on.
    unsafe ThreadSlot.keep(memory, in: purpose.rawValue)
    return unsafe made
  }
}
