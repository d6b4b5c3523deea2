internal import Glibc

extension OpenFile {
  package func read(
    at offset: UInt64, length: Int, flags: FileFlags, reply: consuming ReadReply
  ) {
    reply.fail(EBADF)
  }

  package func write(
    _ bytes: RawSpan, at offset: UInt64, flags: FileFlags, reply: consuming WriteReply
  ) {
    reply.fail(EBADF)
  }

  package func synchronise(_ scope: SyncScope, reply: consuming StatusReply) {
    reply.fail(EINVAL)
  }

  package func flush(reply: consuming StatusReply) {
    reply.succeed()
  }

  package func allocate(
    _ request: AllocationRequest, at offset: UInt64, length: UInt64, reply: consuming StatusReply
  ) {
    reply.fail(EOPNOTSUPP)
  }

  package func seek(to target: SeekTarget, from offset: UInt64, reply: consuming SeekReply) {
    reply.fail(EINVAL)
  }

  // Not ENOSYS: the kernel would take it as the word for every file of the mount.
  package func poll(_ handle: consuming PollHandle?, reply: consuming PollReply) {
    reply.send([.readable, .writable])
  }

  package func released() {}
}
