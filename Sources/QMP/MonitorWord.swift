// A line that is still being typed. Its end is a word, perhaps an empty one, and what stands before it says
// what the word is going to be.

/// The last word of a line of the human monitor that is not finished.
package struct MonitorWord: Equatable, Sendable {
  /// What a word is.
  package enum Role: Equatable, Sendable {
    case command
    /// What `info` tells about.
    case subject
    case device
    /// A layer of a device that a stream keeps.
    case base(device: String)
    case file
    /// The format of an image.
    case format
    /// A number, or nothing that is known.
    case other
  }

  /// Whether more of a word is to come.
  package enum Ending: Sendable {
    case open
    case complete
  }

  /// What it is going to be.
  package let role: Role
  /// What was typed of it, without quotes.
  package let text: String
  /// How many characters (Unicode scalars) the line has of it.
  package let length: Int
  private let isQuoted: Bool

  /// All names of commands.
  package static var commands: [String] { MonitorCommand.allCases.map(\.rawValue) }
  /// All subjects of `info`.
  package static var subjects: [String] { MonitorCommand.Subject.allCases.map(\.rawValue) }

  /// The word at the end of a line.
  package init(endOf line: String) {
    var rest = Substring(line).unicodeScalars
    var earlier: [String] = []
    while true {
      rest = rest.drop(while: Self.isBlank)
      let start = rest
      let (word, isFinished) = Self.take(&rest)
      if !isFinished {
        role = Self.role(after: earlier)
        text = word
        length = start.count
        isQuoted = start.first == "\""
        return
      }
      earlier.append(word)
    }
  }

  /// How the word stands in a line if it is `text`, up to the blank behind it if that is all of it.
  package func written(as text: String, _ ending: Ending) -> String {
    let end = ending == .complete ? " " : ""
    guard isQuoted || text.unicodeScalars.contains(where: { Self.isBlank($0) || $0 == "\"" })
    else { return text + end }
    var written = "\""
    for scalar in text.unicodeScalars {
      switch scalar {
      case "\n": written += "\\n"
      case "\r": written += "\\r"
      case "\"", "\\": written += "\\\(scalar)"
      default: written.unicodeScalars.append(scalar)
      }
    }
    return ending == .complete ? written + "\"" + end : written
  }

  /// Takes a word, and says whether the line goes on behind it.
  private static func take(_ rest: inout Substring.UnicodeScalarView) -> (String, Bool) {
    var word = String.UnicodeScalarView()
    guard rest.first == "\"" else {
      word.append(contentsOf: rest.prefix { !isBlank($0) })
      rest = rest.dropFirst(word.count)
      return (String(word), !rest.isEmpty)
    }
    rest.removeFirst()
    while let scalar = rest.popFirst() {
      switch scalar {
      case "\"": return (String(word), true)
      case "\\":
        guard let escaped = rest.popFirst() else { break }
        word.append(escaped == "n" ? "\n" : escaped == "r" ? "\r" : escaped)
      default: word.append(scalar)
      }
    }
    return (String(word), false)
  }

  private static func isBlank(_ scalar: Unicode.Scalar) -> Bool {
    scalar.isASCII && MonitorWords.isBlank(UInt8(scalar.value))
  }

  private static func role(after words: [String]) -> Role {
    guard let name = words.first else { return .command }
    guard let command = MonitorCommand(name: name) else { return .other }
    let arguments = words.dropFirst().filter { !$0.hasPrefix("-") }
    switch (command, arguments.count) {
    case (.help, 0): return .command
    case (.help, 1) where arguments[0] == "info", (.info, 0): return .subject
    case (.info, 1) where arguments[0] == MonitorCommand.Subject.block.rawValue: return .device
    case (.help, _), (.info, _), (.stop, _), (.cont, _), (.quit, _): return .other
    case (_, 0): return .device
    case (.blockStream, 2): return .base(device: arguments[0])
    case (.snapshot, 1): return .file
    case (.snapshot, 2): return .format
    default: return .other
    }
  }
}
