internal import FoundationEssentials
internal import Glibc
internal import SystemPackage

// What the program prints, and the bars it draws where somebody looks on.

/// The program's two outputs.
enum Terminal {
  /// Writes text as it is. A reader that went away is not worth a message.
  static func write(_ text: String) {
    print(text, terminator: "")
    // No stream is named: all are flushed.
    fflush(nil)
  }

  /// A reason on standard error, in the form every command uses.
  static func complain(_ sentence: String) {
    complain(line: "chainfs: \(sentence)")
  }

  /// A line on standard error as it is.
  static func complain(line: String) {
    do {
      _ = try FileDescriptor.standardError.writeAll((line + "\n").utf8)
    } catch {
      // There is nowhere left to say so.
    }
  }

  /// A question on standard error, whose answer goes on in its line.
  static func ask(_ question: String) {
    do {
      _ = try FileDescriptor.standardError.writeAll(question.utf8)
    } catch {
      // Nobody sees it; the answer is read all the same.
    }
  }

  /// True where standard output is a terminal.
  static var isInteractive: Bool { isatty(STDOUT_FILENO) == 1 }

  /// How many columns it has.
  static var width: Int {
    var size = winsize()
    // Alive: the size is this local.
    guard unsafe ioctl(STDOUT_FILENO, UInt(TIOCGWINSZ), &size) == 0, size.ws_col > 0 else {
      return 80
    }
    return Int(size.ws_col)
  }
}

/// Lines that are drawn over each other while a job runs; nothing at all into a pipe.
final class ProgressView {
  /// True where bars can be drawn.
  let isLive = Terminal.isInteractive
  private var drawn = 0

  /// Replaces what was drawn before.
  func show(_ lines: [String]) {
    guard isLive else { return }
    // Up over the last drawing, then each line cleared before it is written.
    var text = drawn > 0 ? "\u{1B}[\(drawn)A" : ""
    for line in lines { text += "\u{1B}[2K\(line)\n" }
    for _ in 0..<max(0, drawn - lines.count) { text += "\u{1B}[2K\n" }
    drawn = max(drawn, lines.count)
    Terminal.write(text)
  }

  /// Leaves the last drawing where it stands.
  func finish() {
    drawn = 0
  }
}

/// The time of day for people, and waiting between two looks.
enum Clock {
  /// Now, in the form of RFC 3339, in UTC.
  static func timestamp() -> String {
    Date.now.formatted(.iso8601)
  }

  /// Sleeps.
  static func wait(milliseconds: UInt32) {
    usleep(milliseconds * 1000)
  }
}

/// One line with a percentage on standard error, while somebody looks on; it is gone in the end.
final class PercentView {
  private let verb: String
  private let isLive = isatty(STDERR_FILENO) == 1
  private var drawn: Int?

  /// Names what is done.
  init(verb: String) { self.verb = verb }

  /// Draws the line if the percentage is another one.
  func show(_ done: Int, _ total: Int) {
    guard isLive, total > 0 else { return }
    let percent = done * 100 / total
    if percent == drawn { return }
    drawn = percent
    write("\r\(verb): \(percent) %\u{1B}[K")
  }

  /// Takes the line away.
  func finish() {
    if drawn != nil { write("\r\u{1B}[K") }
  }

  private func write(_ text: String) {
    do {
      _ = try FileDescriptor.standardError.writeAll(text.utf8)
    } catch {
      // There is nowhere left to draw.
    }
  }
}
