// A device that somebody has open: the request path. The thread that took the request asks the disk
// and answers; there is no hop, no queue and no memory of a request's own.

internal import Chain
internal import Fuse
internal import Glibc
internal import HostSystem

final class OpenDevice: OpenFile {
  private let node: DeviceNode
  private let disk: Disk

  init(_ node: DeviceNode) {
    self.node = node
    disk = node.disk
  }

  func read(at offset: UInt64, length: Int, flags: FileFlags, reply: consuming ReadReply) {
    let size = disk.virtualSize
    let count = offset < size ? Int(min(UInt64(length), size - offset)) : 0
    let disk = disk
    reply.fill(upTo: count, failure: node.number) { buffer throws(ChainError) in
      guard count > 0 else { return 0 }
      var bytes = buffer.slice(0..<count)
      try disk.read(into: &bytes, at: GuestOffset(offset))
      return count
    }
  }

  func write(_ bytes: RawSpan, at offset: UInt64, flags: FileFlags, reply: consuming WriteReply) {
    let size = disk.virtualSize
    guard bytes.byteCount > 0 else { return reply.send(written: 0) }
    guard offset < size else { return reply.fail(ENOSPC) }
    let count = Int(min(UInt64(bytes.byteCount), size - offset))
    do {
      try disk.write(bytes.extracting(0..<count), at: GuestOffset(offset))
      node.touch()
      if flags.writesDurably { try disk.flushForGuest() }
      // Of a short answer to O_DIRECT the kernel makes EIO, the word of a broken disk.
      if count < bytes.byteCount, flags.isDirect { return reply.fail(ENOSPC) }
      reply.send(written: count)
    } catch { reply.fail(node.number(of: error)) }
  }

  func synchronise(_ scope: SyncScope, reply: consuming StatusReply) {
    if disk.isReadOnly { return reply.succeed() }
    finish(reply) { () throws(ChainError) in try disk.flushForGuest() }
  }

  func flush(reply: consuming StatusReply) { reply.succeed() }

  func allocate(
    _ request: AllocationRequest, at offset: UInt64, length: UInt64, reply: consuming StatusReply
  ) {
    if disk.isReadOnly { return reply.fail(EROFS) }
    let size = disk.virtualSize
    let (end, overflow) = offset.addingReportingOverflow(length)
    guard !overflow, length > 0 else { return reply.fail(EINVAL) }
    let inside = GuestRange(
      from: GuestOffset(min(offset, size)), to: GuestOffset(min(end, size)))
    switch request {
    // What the disk's end cuts off has no space to be given, or would have to grow.
    case .preallocate(let keepsSize):
      if end > size { return reply.fail(keepsSize && offset < size ? EFBIG : ENOSPC) }
      finish(reply) { () throws(ChainError) in try disk.preallocate(inside) }
    case .zeroRange(let keepsSize):
      if end > size, !keepsSize { return reply.fail(ENOSPC) }
      changeBytes(inside, reply) { () throws(ChainError) in try disk.writeZeroes(inside) }
    case .punchHole:
      changeBytes(inside, reply) { () throws(ChainError) in try disk.discard(inside) }
    case .unknown: reply.fail(EOPNOTSUPP)
    }
  }

  private func changeBytes(
    _ range: GuestRange, _ reply: consuming StatusReply, _ body: () throws(ChainError) -> Void
  ) {
    if range.isEmpty { return reply.succeed() }
    finish(reply) { () throws(ChainError) in
      try body()
      node.touch()
    }
  }

  private func finish(
    _ reply: consuming StatusReply, _ body: () throws(ChainError) -> Void
  ) {
    do {
      try body()
      reply.succeed()
    } catch { reply.fail(node.number(of: error)) }
  }

  func seek(to target: SeekTarget, from offset: UInt64, reply: consuming SeekReply) {
    let size = disk.virtualSize
    guard offset < size else { return reply.fail(ENXIO) }
    do {
      switch target {
      case .data:
        guard let found = try disk.nextData(from: GuestOffset(offset)) else {
          return reply.fail(ENXIO)
        }
        reply.send(found.rawValue)
      case .hole:
        reply.send(try disk.nextHole(from: GuestOffset(offset))?.rawValue ?? size)
      }
    } catch { reply.fail(node.number(of: error)) }
  }
}
