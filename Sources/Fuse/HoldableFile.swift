internal import HostSystem

/// An open file whose bytes can be stopped: see ``RequestHold``.
///
/// What reads, changes or makes durable its content waits while the hold is stopped. Opening, closing and
/// attributes go on.
package final class HoldableFile: OpenFile {
  private let file: any OpenFile
  private let hold: RequestHold

  /// A file that answers every request before its method returns, and a hold, perhaps of several files.
  package init(_ file: any OpenFile, _ hold: RequestHold) {
    self.file = file
    self.hold = hold
  }

  package func read(
    at offset: UInt64, length: Int, flags: FileFlags, reply: consuming ReadReply
  ) {
    if hold.enter() {
      defer { hold.leave() }
      return file.read(at: offset, length: length, flags: flags, reply: reply)
    }
    hold.keep(reply.owed) { [file] owed in
      file.read(at: offset, length: length, flags: flags, reply: ReadReply(owed: owed))
    }
  }

  package func write(
    _ bytes: RawSpan, at offset: UInt64, flags: FileFlags, reply: consuming WriteReply
  ) {
    if hold.enter() {
      defer { hold.leave() }
      return file.write(bytes, at: offset, flags: flags, reply: reply)
    }
    // The span ends with this call.
    let copy = bytes.copied()
    hold.keep(reply.owed, byteCount: copy.count) { [file] owed in
      file.write(copy.rawSpan, at: offset, flags: flags, reply: WriteReply(owed: owed))
    }
  }

  package func synchronise(_ scope: SyncScope, reply: consuming StatusReply) {
    if hold.enter() {
      defer { hold.leave() }
      return file.synchronise(scope, reply: reply)
    }
    hold.keep(reply.owed) { [file] owed in
      file.synchronise(scope, reply: StatusReply(owed: owed))
    }
  }

  package func allocate(
    _ request: AllocationRequest, at offset: UInt64, length: UInt64, reply: consuming StatusReply
  ) {
    if hold.enter() {
      defer { hold.leave() }
      return file.allocate(request, at: offset, length: length, reply: reply)
    }
    hold.keep(reply.owed) { [file] owed in
      file.allocate(request, at: offset, length: length, reply: StatusReply(owed: owed))
    }
  }

  package func seek(to target: SeekTarget, from offset: UInt64, reply: consuming SeekReply) {
    if hold.enter() {
      defer { hold.leave() }
      return file.seek(to: target, from: offset, reply: reply)
    }
    hold.keep(reply.owed) { [file] owed in
      file.seek(to: target, from: offset, reply: SeekReply(owed: owed))
    }
  }

  package func flush(reply: consuming StatusReply) { file.flush(reply: reply) }

  package func poll(_ handle: consuming PollHandle?, reply: consuming PollReply) {
    file.poll(handle, reply: reply)
  }

  package func released() { file.released() }
}
