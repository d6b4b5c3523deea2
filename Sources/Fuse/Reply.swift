internal import CFuse
internal import Glibc
internal import HostSystem

// The one place where an answer goes to the kernel.
//
// A request is answered once: a second answer would free libfuse's request twice, none would leave
// the client waiting for ever, beyond the reach of kill -9. `OwedReply` turns both into things that
// cannot be written: it is not copyable, every ending consumes it, and one that is dropped answers
// EIO. The typed replies in Replies.swift wrap it, so that a read cannot be answered as a lookup.
//
// libfuse reports a failure to answer only when the client is gone by then (interrupted before it
// saw the answer, or the connection is cut). The request is over in each case, so the result is
// dropped, with one exception: an open that nobody received will never be released.

/// The bare duty to answer one request.
///
/// Sendable, unchecked: the value is the only owner of a libfuse request, and libfuse lets a
/// request be answered from any thread (its list of requests has a lock of its own).
@safe struct OwedReply: ~Copyable, @unchecked Sendable {
  fileprivate let request: OpaquePointer

  /// Takes over the duty; the request must not have been answered.
  init(_ request: OpaquePointer?) {
    guard let request = unsafe request else { preconditionFailure("a callback without a request") }
    unsafe self.request = request
  }

  deinit {
    // In bounds and alive: a request lives until it is answered, and no ending has run.
    _ = unsafe fuse_reply_err(request, EIO)
  }

  /// Who asks.
  var caller: Caller {
    // libfuse keeps the context inside the request, which is alive.
    guard let context = unsafe fuse_req_ctx(request) else {
      return Caller(userID: 0, groupID: 0, threadID: 0)
    }
    return unsafe Caller(
      userID: context.pointee.uid, groupID: context.pointee.gid, threadID: context.pointee.pid)
  }

  /// It came through io_uring.
  var isOnRing: Bool {
    // Alive: a request lives until it is answered; so below.
    unsafe chainfs_is_on_ring(request) != 0
  }

  /// The kernel's number of a request that came through io_uring, nil where it cannot be told.
  var numberOnRing: UInt64? {
    let number = unsafe chainfs_ring_number(request)
    return number == 0 ? nil : number
  }

  /// What the session keeps beside libfuse.
  var context: SessionContext {
    unsafe SessionContext.of(request)
  }

  /// Ends with an errno; 0 is success without a payload.
  consuming func end(_ number: Int32) {
    // Each ending takes the pointer out and disarms deinit: libfuse frees the request here.
    let request = unsafe self.request
    discard self
    _ = unsafe fuse_reply_err(request, number)
  }

  /// Ends a request that has no answer (forget).
  consuming func endSilently() {
    let request = unsafe self.request
    discard self
    unsafe fuse_reply_none(request)
  }

  consuming func end(_ bytes: RawSpan) {
    let request = unsafe self.request
    discard self
    // The pointer is used inside the closure only; libfuse has written the bytes when it returns.
    unsafe bytes.withUnsafeBytes { raw in
      _ = unsafe fuse_reply_buf(
        request, raw.baseAddress?.assumingMemoryBound(to: CChar.self), raw.count)
    }
  }

  /// Ends with a part of an array's bytes; the range lies within it.
  consuming func end(_ bytes: [UInt8], _ range: Range<Int>) {
    // The span checks its bounds and lives as long as the array. "Unsafe" is the compiler's word for
    // seeing typed values as bytes, which bytes are.
    end(unsafe bytes.span.bytes.extracting(range))
  }

  consuming func end(entry: consuming fuse_entry_param) {
    let request = unsafe self.request
    discard self
    _ = unsafe fuse_reply_entry(request, &entry)
  }

  consuming func end(attributes: consuming stat, validFor validity: Validity) {
    let request = unsafe self.request
    discard self
    _ = unsafe fuse_reply_attr(request, &attributes, validity.seconds)
  }

  consuming func end(link: String) {
    let request = unsafe self.request
    discard self
    _ = unsafe fuse_reply_readlink(request, link)
  }

  /// Ends an open. False: the opener is gone, and there will be no release.
  consuming func end(opened: consuming fuse_file_info) -> Bool {
    let request = unsafe self.request
    discard self
    return unsafe fuse_reply_open(request, &opened) == 0
  }

  consuming func end(written count: Int) {
    let request = unsafe self.request
    discard self
    _ = unsafe fuse_reply_write(request, count)
  }

  consuming func end(statistics: consuming statvfs) {
    let request = unsafe self.request
    discard self
    _ = unsafe fuse_reply_statfs(request, &statistics)
  }

  /// Ends the ioctl that asks for this process.
  consuming func end(process: Int32) {
    let request = unsafe self.request
    discard self
    // In bounds and alive: four bytes of this local, which libfuse has sent when it returns.
    _ = unsafe withUnsafeBytes(of: process) { bytes in
      unsafe fuse_reply_ioctl(request, 0, bytes.baseAddress, bytes.count)
    }
  }

  consuming func end(position: UInt64) {
    let request = unsafe self.request
    discard self
    _ = unsafe fuse_reply_lseek(request, off_t(clamping: position))
  }

  consuming func end(readiness: Readiness) {
    let request = unsafe self.request
    discard self
    _ = unsafe fuse_reply_poll(request, readiness.rawValue)
  }

  /// Ends with what `body` puts into this thread's buffer, or with its failure.
  consuming func end<Failure: Error>(
    filling length: Int, failure number: (Failure) -> Int32,
    _ body: (inout MutableRawSpan) throws(Failure) -> Int
  ) {
    let request = unsafe self.request
    discard self
    let buffer = unsafe answerBuffer(of: request, upTo: length)
    do throws(Failure) {
      // The memory belongs to this thread and outlives the call; the span ends with this scope.
      var span = unsafe buffer.mutableBytes
      let count = try body(&span)
      precondition(count >= 0 && count <= buffer.count, "more bytes than the buffer has")
      _ = unsafe fuse_reply_buf(
        request, buffer.baseAddress?.assumingMemoryBound(to: CChar.self), count)
    } catch {
      _ = unsafe fuse_reply_err(request, number(error))
    }
  }

  /// Packs a directory into this thread's buffer and ends with it.
  consuming func end(listing capacity: Int, _ body: (inout DirectoryListing) -> Void) {
    let request = unsafe self.request
    discard self
    let buffer = unsafe answerBuffer(of: request, upTo: capacity)
    var listing = unsafe DirectoryListing(request: request, buffer: buffer)
    body(&listing)
    // `used` is within the buffer: libfuse says what an entry takes, and what does not fit is not
    // counted.
    _ = unsafe fuse_reply_buf(
      request, buffer.baseAddress?.assumingMemoryBound(to: CChar.self), listing.used)
  }
}

/// The memory to answer a request from: what a ring has for it, which is sent without being copied, or
/// this thread's buffer.
private func answerBuffer(
  of request: OpaquePointer, upTo length: Int
) -> UnsafeMutableRawBufferPointer {
  var size = 0
  // Alive: both belong to the request, or this thread, until it is answered. In bounds: libfuse tells the
  // size of its memory, which is page aligned as ours is.
  guard let payload = unsafe chainfs_ring_payload(request, &size) else {
    return unsafe ThreadBuffer.bytes(upTo: length)
  }
  return unsafe UnsafeMutableRawBufferPointer(start: payload, count: min(max(length, 0), size))
}

/// The way to hear of an interrupt while the reply itself is kept elsewhere.
@safe struct InterruptListener: ~Copyable {
  private let request: OpaquePointer

  init(_ owed: borrowing OwedReply) {
    unsafe request = owed.request
  }

  /// Asks libfuse to call back when the client is interrupted; `number` finds the waiter again.
  /// The callback may run before this returns, on this thread, and must not answer then. Nobody
  /// else may answer before this returns.
  consuming func listen(as number: UInt) {
    // The cookie is a number in disguise; nobody follows it.
    let cookie = unsafe UnsafeMutableRawPointer(bitPattern: number)
    unsafe fuse_req_interrupt_func(request, interruptCallback(), cookie)
  }
}

/// The kernel's wish to hear when a file becomes ready, from a poll(2) that waits.
///
/// Dropping it is right when it has been replaced or nobody cares any more.
@safe package struct PollHandle: ~Copyable, @unchecked Sendable {
  // Sendable, unchecked: the value is the only owner, and libfuse writes a notification with one
  // system call and no shared state.
  private let handle: OpaquePointer

  /// Takes over a handle that libfuse made for one poll request.
  init(_ handle: OpaquePointer) {
    unsafe self.handle = handle
  }

  deinit {
    unsafe fuse_pollhandle_destroy(handle)
  }

  /// Wakes those who wait; they will ask again.
  package consuming func notify() {
    let handle = unsafe self.handle
    discard self
    // Alive: only deinit and this free it. Failure means that nobody waits any more.
    _ = unsafe fuse_lowlevel_notify_poll(handle)
    unsafe fuse_pollhandle_destroy(handle)
  }
}

/// The bytes of a thread that requests are answered from: one buffer for each worker, as large as
/// the largest request, kept until the thread ends.
///
/// A buffer for each request costs two thirds of the throughput of large reads.
enum ThreadBuffer {
  /// The largest read, write and listing, in bytes. Session tells the kernel.
  static let capacity = 1 << 20
  private static let pageSize = 4096
  /// HostSystem's list of slots gives this one to Fuse.
  private static let slot: Int32 = 0

  /// The first `length` bytes of this thread's buffer, or all if there are fewer. Valid until the
  /// thread ends, and for one request: the next one overwrites them.
  static func bytes(upTo length: Int) -> UnsafeMutableRawBufferPointer {
    unsafe UnsafeMutableRawBufferPointer(start: memory(), count: min(max(length, 0), capacity))
  }

  /// Makes this thread's buffer if there is none.
  static func prepare() {
    _ = unsafe memory()
  }

  private static func memory() -> UnsafeMutableRawPointer {
    if let memory = unsafe ThreadSlot.memory(slot) { return unsafe memory }
    guard let memory = unsafe aligned_alloc(pageSize, capacity) else {
      preconditionFailure("no memory for the buffer of a worker")
    }
    // Touched now: a request must not wait for memory that only requests can free.
    unsafe memset(memory, 0, capacity)
    unsafe ThreadSlot.keep(memory, in: slot)
    return unsafe memory
  }
}
