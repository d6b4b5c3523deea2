// What the prompt itself answers. In QEMU `quit` ends the emulator, and the disks with it; a habit of typing
// it must not take somebody's mount away, so here it leaves the prompt, and help says so.

/// A line that does not go to the mount.
enum LocalLine {
  /// Leaves the prompt.
  case quit
  /// The mount tells its commands, all but this one's.
  case help
  /// Prints a text.
  case text(String)

  private static let usage = "quit|q -- leave this prompt; the mount stays\n"

  /// Nil for a line that is the mount's.
  init?(_ line: String) {
    let words = line.split(whereSeparator: \.isWhitespace)
    switch words.first {
    case "quit", "q": self = .quit
    case "help", "?":
      if words.count == 1 {
        self = .help
      } else if words[1] == "quit" || words[1] == "q" {
        self = .text(Self.usage)
      } else {
        return nil
      }
    default: return nil
    }
  }

  /// What the mount tells of its commands, but for what `quit` is here.
  static func help(_ text: String) -> String {
    text.split(separator: "\n").map { $0.hasPrefix("quit|q ") ? usage : "\($0)\n" }.joined()
  }
}
