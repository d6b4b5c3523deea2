internal import CFuse
internal import Glibc

// From libfuse's C callbacks to `Operations` and `OpenFile`, and nothing else.
//
// The callbacks capture nothing, so that they can be C functions, and they are formed in plain
// functions: formed in an entry point they would belong to the main actor and trap on libfuse's
// threads. Each finds the session by the request, wraps the request in the reply that is owed, and
// passes values on.
//
// What holds for every pointer here: libfuse keeps a request until it is answered, and its
// arguments (names, bytes, file info) until the callback returns. They are copied into values, but
// for the bytes of a write, which go on as a span of exactly the length that libfuse gives.
//
// What no file of this system can do (make, remove, rename) is refused here with the errno that
// the man pages give for a file system without that operation.
//
// There are no extended attributes, for a reason. Before each cached write the kernel asks for
// security.capability, to drop it; a file system that serves any attribute gets that request with
// every write, which halves small ones. Without the callback the kernel asks once in a mount.

extension SessionContext {
  /// The context of the session that a request came from.
  static func of(_ request: OpaquePointer?) -> SessionContext {
    guard let request = unsafe request else { preconditionFailure("a callback without a request") }
    // The session retains its context until libfuse has given up its last request.
    return unsafe from(fuse_req_userdata(request))
  }

  static func from(_ userData: UnsafeMutableRawPointer) -> SessionContext {
    // The user data is `retainedUserData`, and not released while libfuse has it.
    unsafe Unmanaged<SessionContext>.fromOpaque(userData).takeUnretainedValue()
  }

  /// What is handed to libfuse as user data; `SessionContext.release` takes it back.
  func retainedUserData() -> UnsafeMutableRawPointer {
    unsafe Unmanaged.passRetained(self).toOpaque()
  }

  /// Ends the retention by `retainedUserData`, which must not be used any more.
  static func release(_ userData: UnsafeMutableRawPointer) {
    unsafe Unmanaged<SessionContext>.fromOpaque(userData).release()
  }
}

/// Gives an open file an address of one word, which is the kernel's handle for it.
final class OpenFileBox: Sendable {
  let file: any OpenFile

  init(_ file: any OpenFile) {
    self.file = file
  }

  /// The address, valid as long as the table of open files holds the box.
  var ticket: UInt64 {
    unsafe UInt64(UInt(bitPattern: Unmanaged.passUnretained(self).toOpaque()))
  }
}

/// The open file that a request speaks of.
private func file(_ info: UnsafeMutablePointer<fuse_file_info>) -> any OpenFile {
  // The kernel gives back what `open` answered, and sends nothing for a file after its release.
  guard let address = unsafe UnsafeRawPointer(bitPattern: UInt(info.pointee.fh)) else {
    preconditionFailure("a request for an open file carries no handle")
  }
  return unsafe Unmanaged<OpenFileBox>.fromOpaque(address).takeUnretainedValue().file
}

private func flags(_ info: UnsafeMutablePointer<fuse_file_info>) -> FileFlags {
  unsafe FileFlags(rawValue: info.pointee.flags)
}

/// All callbacks of a session.
func operationTable() -> fuse_lowlevel_ops {
  var table = fuse_lowlevel_ops()
  unsafe table.`init` = { userData, connection in
    guard let userData = unsafe userData, let connection = unsafe connection else { return }
    // Both are libfuse's arguments: the retained context, and a struct for the length of the call.
    unsafe SessionContext.from(userData).configure(&connection.pointee)
  }
  addTreeCallbacks(&table)
  addAttributeCallbacks(&table)
  addFileCallbacks(&table)
  addRangeCallbacks(&table)
  addRefusals(&table)
  return table
}

private func addTreeCallbacks(_ table: inout fuse_lowlevel_ops) {
  unsafe table.lookup = { request, parent, name in
    let reply = unsafe EntryReply(owed: OwedReply(request))
    // A name that is not text is none of ours.
    guard let name = unsafe name.flatMap({ unsafe String(validatingCString: $0) }) else {
      return reply.fail(ENOENT)
    }
    unsafe SessionContext.of(request).operations.lookup(
      name, in: InodeNumber(parent), reply: reply)
  }
  unsafe table.forget = { request, inode, lookups in
    let owed = unsafe OwedReply(request)
    owed.context.operations.forget(InodeNumber(inode), lookups: UInt64(lookups))
    owed.endSilently()
  }
  unsafe table.forget_multi = { request, count, forgets in
    let owed = unsafe OwedReply(request)
    let operations = owed.context.operations
    let list = unsafe UnsafeBufferPointer(start: forgets, count: count)
    for index in 0..<count {
      let forget = unsafe list[index]
      operations.forget(InodeNumber(UInt64(forget.ino)), lookups: forget.nlookup)
    }
    owed.endSilently()
  }
  unsafe table.readlink = { request, inode in
    unsafe SessionContext.of(request).operations.readLink(
      InodeNumber(inode), reply: LinkReply(owed: OwedReply(request)))
  }
  // Answered here, and not left out: without opendir the kernel would cache listings for ever.
  unsafe table.opendir = { request, _, info in
    guard let info = unsafe info else { return unsafe OwedReply(request).end(EIO) }
    _ = unsafe OwedReply(request).end(opened: info.pointee)
  }
  unsafe table.releasedir = { request, _, _ in unsafe OwedReply(request).end(0) }
  unsafe table.fsyncdir = { request, _, _, _ in unsafe OwedReply(request).end(0) }
  unsafe table.readdir = { request, inode, capacity, position, _ in
    // A position is what a listing gave out as 64 bits.
    unsafe SessionContext.of(request).operations.list(
      InodeNumber(inode), from: UInt64(bitPattern: Int64(position)),
      reply: ListingReply(owed: OwedReply(request), capacity: capacity))
  }
  unsafe table.statfs = { request, inode in
    unsafe SessionContext.of(request).operations.statistics(
      of: InodeNumber(inode), reply: StatisticsReply(owed: OwedReply(request)))
  }
}

private func addAttributeCallbacks(_ table: inout fuse_lowlevel_ops) {
  unsafe table.getattr = { request, inode, _ in
    unsafe SessionContext.of(request).operations.attributes(
      of: InodeNumber(inode), reply: AttributesReply(owed: OwedReply(request)))
  }
  unsafe table.setattr = { request, inode, attributes, bits, info in
    let reply = unsafe AttributesReply(owed: OwedReply(request))
    guard let attributes = unsafe attributes?.pointee else { return reply.fail(EIO) }
    let change = unsafe AttributeChange(
      attributes, setting: bits, isThroughFile: info != nil)
    unsafe SessionContext.of(request).operations.change(
      change, of: InodeNumber(inode), reply: reply)
  }
  unsafe table.access = { request, inode, mask in
    unsafe SessionContext.of(request).operations.checkAccess(
      mask, of: InodeNumber(inode), reply: StatusReply(owed: OwedReply(request)))
  }
}

private func addFileCallbacks(_ table: inout fuse_lowlevel_ops) {
  unsafe table.open = { request, inode, info in
    let reply = unsafe OpenReply(owed: OwedReply(request))
    guard let info = unsafe info else { return reply.fail(EIO) }
    unsafe SessionContext.of(request).operations.open(
      InodeNumber(inode), flags: flags(info), reply: reply)
  }
  unsafe table.release = { request, _, info in
    let owed = unsafe OwedReply(request)
    guard let info = unsafe info else { return owed.end(EIO) }
    unsafe owed.context.files.remove(info.pointee.fh)?.released()
    owed.end(0)
  }
  unsafe table.read = { request, _, length, offset, info in
    let reply = unsafe ReadReply(owed: OwedReply(request))
    guard let info = unsafe info else { return reply.fail(EIO) }
    unsafe file(info).read(
      at: UInt64(clamping: offset), length: length, flags: flags(info), reply: reply)
  }
  unsafe table.write = { request, _, bytes, count, offset, info in
    let reply = unsafe WriteReply(owed: OwedReply(request))
    guard let info = unsafe info else { return reply.fail(EIO) }
    let buffer = unsafe UnsafeRawBufferPointer(start: bytes, count: count)
    unsafe file(info).write(
      buffer.bytes, at: UInt64(clamping: offset), flags: flags(info), reply: reply)
  }
  unsafe table.flush = { request, _, info in
    let reply = unsafe StatusReply(owed: OwedReply(request))
    guard let info = unsafe info else { return reply.fail(EIO) }
    unsafe file(info).flush(reply: reply)
  }
  unsafe table.fsync = { request, _, dataOnly, info in
    let reply = unsafe StatusReply(owed: OwedReply(request))
    guard let info = unsafe info else { return reply.fail(EIO) }
    unsafe file(info).synchronise(dataOnly != 0 ? .data : .everything, reply: reply)
  }
  unsafe table.poll = { request, _, info, handle in
    let reply = unsafe PollReply(owed: OwedReply(request))
    let waiting: PollHandle?
    if let handle = unsafe handle { waiting = unsafe PollHandle(handle) } else { waiting = nil }
    guard let info = unsafe info else { return reply.fail(EIO) }
    unsafe file(info).poll(waiting, reply: reply)
  }
}

private func addRangeCallbacks(_ table: inout fuse_lowlevel_ops) {
  unsafe table.fallocate = { request, _, mode, offset, length, info in
    let reply = unsafe StatusReply(owed: OwedReply(request))
    guard let info = unsafe info else { return reply.fail(EIO) }
    unsafe file(info).allocate(
      AllocationRequest(mode: mode), at: UInt64(clamping: offset),
      length: UInt64(clamping: length), reply: reply)
  }
  unsafe table.lseek = { request, _, offset, whence, info in
    let reply = unsafe SeekReply(owed: OwedReply(request))
    guard let info = unsafe info else { return reply.fail(EIO) }
    // SEEK_DATA and SEEK_HOLE, which Glibc's module leaves out.
    switch whence {
    case 3: unsafe file(info).seek(to: .data, from: UInt64(clamping: offset), reply: reply)
    case 4: unsafe file(info).seek(to: .hole, from: UInt64(clamping: offset), reply: reply)
    default: reply.fail(EINVAL)
    }
  }
}

private func addRefusals(_ table: inout fuse_lowlevel_ops) {
  // Programs probe what they open for a terminal; none of our files is one.
  unsafe table.ioctl = { request, _, command, _, _, _, _, _, room in
    let owed = unsafe OwedReply(request)
    if command == FuseSession.processQuestion, room >= MemoryLayout<Int32>.size {
      owed.end(process: getpid())
    } else {
      owed.end(ENOTTY)
    }
  }
  unsafe table.mknod = { request, _, _, _, _ in unsafe OwedReply(request).end(EPERM) }
  unsafe table.mkdir = { request, _, _, _ in unsafe OwedReply(request).end(EPERM) }
  unsafe table.unlink = { request, _, _ in unsafe OwedReply(request).end(EPERM) }
  unsafe table.rmdir = { request, _, _ in unsafe OwedReply(request).end(EPERM) }
  unsafe table.symlink = { request, _, _, _ in unsafe OwedReply(request).end(EPERM) }
  unsafe table.rename = { request, _, _, _, _, _ in unsafe OwedReply(request).end(EPERM) }
  unsafe table.link = { request, _, _, _ in unsafe OwedReply(request).end(EPERM) }
}

/// What libfuse calls when the client of a parked request is interrupted.
func interruptCallback() -> fuse_interrupt_func_t {
  { request, cookie in
    // The request is alive: libfuse holds it for the length of the callback.
    unsafe SessionContext.of(request).parked.interrupt(UInt(bitPattern: cookie))
  }
}

/// What libfuse calls to say something.
func logCallback() -> fuse_log_func_t {
  { _, format, arguments in
    guard let format = unsafe format, let arguments = unsafe arguments else { return }
    // In bounds: vsnprintf writes at most the size that it is given, with a NUL. The arguments are
    // those that libfuse made for this format.
    var line = [CChar](repeating: 0, count: 512)
    let length = unsafe vsnprintf(&line, line.count, format, arguments)
    if length <= 0 { return }
    let bytes = line.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }
    var text = String(decoding: bytes, as: UTF8.self)
    if text.hasSuffix("\n") { text.removeLast() }
    LibraryLog.add(text)
  }
}

/// A handler that does nothing: the signal's work is to interrupt a call.
func emptySignalHandler() -> @convention(c) (Int32) -> Void {
  { _ in }
}
