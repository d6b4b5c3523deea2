import HostSystem

@testable import Fuse

/// A file that notes what it serves, and may be made to take its time.
final class SlowFile: OpenFile {
  static let size = 1 << 20

  /// A request that was served, in a word.
  enum Served: Equatable, Sendable {
    case read(UInt64)
    case write(UInt64, byte: UInt8)
    case synchronise
    case allocate(UInt64)
    case seek(UInt64)
  }

  struct State {
    var served: [Served] = []
    /// Requests begin, and do not end.
    var isStuck = false
    var begun = 0
  }

  let state = Monitor(State())

  var served: [Served] { state.withLock { $0.served } }

  private func serve(_ what: Served) {
    state.change { $0.begun += 1 }
    state.wait(while: { $0.isStuck })
    state.change { $0.served.append(what) }
  }

  func read(at offset: UInt64, length: Int, flags: FileFlags, reply: consuming ReadReply) {
    serve(.read(offset))
    let bytes = [UInt8](repeating: UInt8(truncatingIfNeeded: offset >> 12), count: length)
    reply.send(bytes, at: 0, length: length)
  }

  func write(_ bytes: RawSpan, at offset: UInt64, flags: FileFlags, reply: consuming WriteReply) {
    serve(.write(offset, byte: bytes.byteCount > 0 ? bytes.copied()[0] : 0))
    reply.send(written: bytes.byteCount)
  }

  func synchronise(_ scope: SyncScope, reply: consuming StatusReply) {
    serve(.synchronise)
    reply.succeed()
  }

  func allocate(
    _ request: AllocationRequest, at offset: UInt64, length: UInt64, reply: consuming StatusReply
  ) {
    serve(.allocate(offset))
    reply.succeed()
  }

  func seek(to target: SeekTarget, from offset: UInt64, reply: consuming SeekReply) {
    serve(.seek(offset))
    reply.send(offset + 7)
  }
}
