internal import Control
internal import Fuse
internal import Glibc
internal import HostSystem

// Somebody who has `monitor` open: writes lines of the human monitor, and reads what they print.
//
//     write:  a line -> taken, carried out by a thread of this open, in order
//     read:   none under way -> what the last line printed, then the end of the file
//             one under way  -> parked, until all are done
//
// So neither a worker nor the lock that the kernel holds on a file while it is written to waits for a line
// that takes long: others write their lines meanwhile. Who wants to know that a line is done reads.
//
// The shell's `exec 3<>monitor; echo info block >&3; cat <&3` shares one position between writing and
// reading, so the position tells nothing: each read goes on where the last one ended, a new line's text is
// read from its beginning, and position 0 is the beginning again.
//
// A line that was taken is carried out, also when its file is closed meanwhile.

/// A monitor that is open.
final class OpenMonitor: OpenFile {
  /// What there is to read before the first line.
  static let usage = "a line of the human monitor, such as help; read then what it prints\n"
  /// How many lines may be on their way.
  static let mostLines = 64

  private struct State {
    var text = Array(OpenMonitor.usage.utf8)
    /// How much of the text was read.
    var position = 0
    /// The lines that are still to be begun.
    var lines: [String] = []
    /// A thread is at work.
    var isBusy = false
    var parked: [Parked] = []
  }

  private struct Parked {
    var read: ParkedRead
    var offset: UInt64
    var length: Int
  }

  private let lines: MonitorLines
  private let state = Monitor(State())

  init(_ lines: MonitorLines) {
    self.lines = lines
  }

  func write(_ bytes: RawSpan, at offset: UInt64, flags: FileFlags, reply: consuming WriteReply) {
    let line: String
    do throws(ControlError) {
      line = try WrittenLine.text(of: bytes.copied())
    } catch { return reply.fail(error.kind.commandErrno) }
    // Two lines in one write are a mistake: the second would be an argument of the first.
    if line.utf8.contains(UInt8(ascii: "\n")) { return reply.fail(EINVAL) }
    let (isTaken, isFirst) = state.withLock { state in
      if state.lines.count >= Self.mostLines { return (false, false) }
      state.lines.append(line)
      defer { state.isBusy = true }
      return (true, !state.isBusy)
    }
    guard isTaken else { return reply.fail(EBUSY) }
    if isFirst {
      do throws(SystemError) {
        try lines.start { run in self.work(run) }
      } catch {
        // Lines that came meanwhile go too; there is no thread that could carry them out.
        finish(with: [])
        return reply.fail(error.number)
      }
    }
    reply.send(written: bytes.byteCount)
  }

  func read(at offset: UInt64, length: Int, flags: FileFlags, reply: consuming ReadReply) {
    // A park may be answered at once, so it is not done under the lock.
    if let bytes = state.withLock({ Self.take(offset, length, from: &$0) }) {
      return reply.send(bytes, at: 0, length: bytes.count)
    }
    if flags.isNonblocking { return reply.fail(EAGAIN) }
    let parked = Parked(read: reply.park(), offset: offset, length: length)
    state.withLock { state in
      // Who was interrupted and asks again leaves a read behind that nobody waits for.
      state.parked.removeAll { !$0.read.isWaiting }
      state.parked.append(parked)
      // The lines may have been done while the reader was parked.
      Self.deliver(&state)
    }
  }

  func flush(reply: consuming StatusReply) { reply.succeed() }

  func released() {
    let parked = state.withLock { state in
      defer { state.parked = [] }
      return state.parked
    }
    for parked in parked { parked.read.fail(EINTR) }
  }

  // MARK: - The thread

  private func work(_ run: (String) -> String) {
    var text: [UInt8] = []
    while let line = nextLine(after: text) { text = Array(run(line).utf8) }
  }

  /// The next line; without one the thread's work is done, and the text of the last line is given.
  private func nextLine(after text: [UInt8]) -> String? {
    state.withLock { state in
      if !state.lines.isEmpty { return state.lines.removeFirst() }
      Self.finish(with: text, &state)
      return nil
    }
  }

  private func finish(with text: [UInt8]) {
    state.withLock { state in
      state.lines = []
      Self.finish(with: text, &state)
    }
  }

  private static func finish(with text: [UInt8], _ state: inout State) {
    state.text = text
    state.position = 0
    state.isBusy = false
    deliver(&state)
  }

  /// Serves whoever waits, if there is something by now.
  private static func deliver(_ state: inout State) {
    while let first = state.parked.first {
      let position = state.position
      guard let bytes = take(first.offset, first.length, from: &state) else { return }
      state.parked.removeFirst()
      // Lock: held over the answer, so that two of them go out in order.
      // Who has gone has not seen them.
      if unsafe !first.read.send(bytes.span.bytes) { state.position = position }
    }
  }

  /// What a read gets, nil while it has to wait.
  private static func take(_ offset: UInt64, _ length: Int, from state: inout State) -> [UInt8]? {
    if state.isBusy { return nil }
    if offset == 0 { state.position = 0 }
    let end = state.position + min(max(length, 0), state.text.count - state.position)
    defer { state.position = end }
    return Array(state.text[state.position..<end])
  }
}
