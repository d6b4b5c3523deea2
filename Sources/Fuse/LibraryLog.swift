internal import CFuse
internal import Glibc
internal import HostSystem

/// What libfuse has to say, which it says by a function that belongs to the whole process.
///
/// While a mount is attempted the lines are collected, so that its failure can be told with them;
/// otherwise they go to standard error, as libfuse itself would have it.
enum LibraryLog {
  private static let collected = Monitor<[String]?>(nil)

  /// Runs `body`, and gives what libfuse said meanwhile. One at a time.
  static func collecting<Result>(_ body: () -> Result) -> (result: Result, lines: [String]) {
    unsafe fuse_set_log_func(logCallback())
    collected.withLock { $0 = [] }
    let result = body()
    let lines = collected.withLock { lines in
      defer { lines = nil }
      return lines ?? []
    }
    return (result, lines)
  }

  static func add(_ text: String) {
    let isCollected = collected.withLock { lines in
      guard lines != nil else { return false }
      lines?.append(text.hasPrefix("fuse: ") ? String(text.dropFirst(6)) : text)
      return true
    }
    if isCollected { return }
    var line = text + "\n"
    // In bounds: the string's own bytes, for the length of the call. A line that cannot be written
    // is lost; there is nowhere to say so.
    line.withUTF8 { _ = unsafe write(STDERR_FILENO, $0.baseAddress, $0.count) }
  }
}
