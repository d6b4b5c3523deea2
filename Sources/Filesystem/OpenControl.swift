internal import Control
internal import Fuse
internal import Glibc
internal import HostSystem

/// A text that was taken when the file was opened.
///
/// One open reads one consistent text, however small the reads; the second read from the start takes
/// a new one.
final class OpenText: OpenFile {
  private let take: @Sendable () throws(ControlError) -> String
  private let state: Monitor<State>

  private struct State {
    var text: [UInt8]
    var wasRead = false
  }

  init(_ take: @escaping @Sendable () throws(ControlError) -> String) throws(ControlError) {
    self.take = take
    state = Monitor(State(text: Array(try take().utf8)))
  }

  func read(at offset: UInt64, length: Int, flags: FileFlags, reply: consuming ReadReply) {
    if offset == 0, state.withLock({ $0.wasRead }) {
      do {
        let text = Array(try take().utf8)
        state.withLock { $0.text = text }
      } catch { return reply.fail(error.kind.commandErrno) }
    }
    let text = state.withLock { state in
      state.wasRead = true
      return state.text
    }
    reply.send(text, at: offset, length: length)
  }

  func flush(reply: consuming StatusReply) { reply.succeed() }
}

/// A control file: each write is one command; reading tells how it is used, or its value.
final class OpenCommand: OpenFile {
  private let text: OpenText?
  private let execute: @Sendable ([UInt8]) throws(ControlError) -> Void

  /// A file without a text was not opened for reading.
  init(_ text: OpenText?, execute: @escaping @Sendable ([UInt8]) throws(ControlError) -> Void) {
    self.text = text
    self.execute = execute
  }

  func read(at offset: UInt64, length: Int, flags: FileFlags, reply: consuming ReadReply) {
    guard let text else { return reply.fail(EBADF) }
    text.read(at: offset, length: length, flags: flags, reply: reply)
  }

  func write(_ bytes: RawSpan, at offset: UInt64, flags: FileFlags, reply: consuming WriteReply) {
    do {
      try execute(bytes.copied())
      reply.send(written: bytes.byteCount)
    } catch { reply.fail(error.kind.commandErrno) }
  }

  func flush(reply: consuming StatusReply) { reply.succeed() }
}

/// A reader of `wait`: its read ends when the device's job has ended.
final class OpenWait: OpenFile {
  private let control: ControlPlane
  private let device: String
  private let state = Monitor(State())

  private struct State {
    var text: [UInt8]?
    var wait: JobWait?
    var isRegistered = false
    var parked: [Parked] = []
  }

  private struct Parked {
    var read: ParkedRead
    var offset: UInt64
    var length: Int
  }

  init(device: String, control: ControlPlane) {
    self.device = device
    self.control = control
  }

  func read(at offset: UInt64, length: Int, flags: FileFlags, reply: consuming ReadReply) {
    let isFirst = state.withLock { state in
      defer { state.isRegistered = true }
      return !state.isRegistered
    }
    if isFirst {
      do {
        let wait = try control.onJobEnd(device: device) { [weak self] text in self?.end(text) }
        state.withLock { $0.wait = wait }
      } catch { return reply.fail(error.kind.commandErrno) }
    }
    if let text = state.withLock({ $0.text }) {
      return reply.send(text, at: offset, length: length)
    }
    if flags.isNonblocking { return reply.fail(EAGAIN) }
    let parked = Parked(read: reply.park(), offset: offset, length: length)
    // The text may have come while the reader was parked.
    let text = state.withLock { state in
      if state.text == nil {
        // Who was interrupted and asks again leaves a read behind that nobody waits for.
        state.parked.removeAll { !$0.read.isWaiting }
        state.parked.append(parked)
      }
      return state.text
    }
    if let text { Self.answer(parked, text) }
  }

  private func end(_ text: String) {
    let bytes = Array(text.utf8)
    let parked = state.withLock { state in
      state.text = bytes
      defer { state.parked = [] }
      return state.parked
    }
    for parked in parked { Self.answer(parked, bytes) }
  }

  private static func answer(_ parked: Parked, _ text: [UInt8]) {
    let start = Int(min(parked.offset, UInt64(text.count)))
    let end = start + min(parked.length, text.count - start)
    let part = Array(text[start..<end])
    // Whoever was interrupted has its answer already.
    _ = unsafe parked.read.send(part.span.bytes)
  }

  func flush(reply: consuming StatusReply) { reply.succeed() }

  func released() {
    let (wait, parked) = state.withLock { ($0.wait, $0.parked) }
    wait?.cancel()
    for parked in parked { parked.read.fail(EINTR) }
  }
}
