// A view that somebody has open. As on a device's way, the thread that took the request reads and
// answers; there is nothing to write.

internal import Chain
internal import Fuse
internal import Glibc
internal import HostSystem

final class OpenView: OpenFile {
  private let directory: ViewDirectory
  private let view: DiskView

  init(_ view: DiskView, of directory: ViewDirectory) {
    self.view = view
    self.directory = directory
  }

  func read(at offset: UInt64, length: Int, flags: FileFlags, reply: consuming ReadReply) {
    let size = view.size
    let count = offset < size ? Int(min(UInt64(length), size - offset)) : 0
    let view = view
    reply.fill(upTo: count, failure: directory.device.number) { buffer throws(ChainError) in
      guard count > 0 else { return 0 }
      var bytes = buffer.slice(0..<count)
      try view.read(into: &bytes, at: GuestOffset(offset))
      return count
    }
  }

  func synchronise(_ scope: SyncScope, reply: consuming StatusReply) { reply.succeed() }

  func flush(reply: consuming StatusReply) { reply.succeed() }

  func seek(to target: SeekTarget, from offset: UInt64, reply: consuming SeekReply) {
    let size = view.size
    guard offset < size else { return reply.fail(ENXIO) }
    do {
      switch target {
      case .data:
        guard let found = try view.nextData(from: GuestOffset(offset)) else {
          return reply.fail(ENXIO)
        }
        reply.send(found.rawValue)
      case .hole:
        reply.send(try view.nextHole(from: GuestOffset(offset))?.rawValue ?? size)
      }
    } catch { reply.fail(directory.device.number(of: error)) }
  }

  func released() { directory.close(view) }
}
