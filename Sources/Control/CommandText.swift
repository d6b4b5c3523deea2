// One control write, taken apart.
//
// The text of a write is words between blanks, quoted as in the shell. A word whose name part before
// an unquoted `=` looks like a key is `key=value`; every other word is bare, and there may be one of
// those. To give a bare word with such a beginning, quote it: `'base=x.qcow2'` is a file name. What
// looks like a key depends on the file: in `.jobs/snapshot` it may be the name of a device.

/// A control write: its bare word and its `key=value` words.
struct CommandText: Equatable {
  /// The word without a key, if there is one.
  private(set) var bare: String?
  /// The values by their keys.
  private(set) var values: [String: String] = [:]

  /// What can stand before a `=`.
  enum Keys {
    /// Words such as `on-error`.
    case options
    /// Those, and whatever can be the name of a device.
    case devices
  }

  /// Takes the bytes of one write(2) apart.
  init(bytes: [UInt8], keys: Keys = .options) throws(ControlError) {
    var splitter = WordSplitter(try WrittenLine.text(of: bytes), keys: keys)
    while let word = try splitter.next() {
      try add(word)
    }
  }

  private mutating func add(_ word: WordSplitter.Word) throws(ControlError) {
    if let key = word.key {
      if values.updateValue(word.value, forKey: key) != nil {
        throw .invalid("\(key) is given twice")
      }
    } else {
      if let bare {
        throw .invalid("only one word may stand without a key, not \(bare) and \(word.value)")
      }
      bare = word.value
    }
  }

  /// Refuses every key that is not among `known`.
  func allow(_ known: [String]) throws(ControlError) {
    for key in values.keys.sorted() where !known.contains(key) {
      throw .invalid(
        known.isEmpty
          ? "\(key)= is not known here, there are no keys"
          : "\(key)= is not known here (have \(known.joined(separator: "=, "))=)")
    }
  }

  /// Checks that this is a verb without arguments: nothing, or a `1`.
  func requireNothing(_ verb: String) throws(ControlError) {
    try allow([])
    if let bare, bare != "1" {
      throw .invalid("\(verb) takes no arguments, not \(bare): write an empty line or 1")
    }
  }
}

/// Takes words off a text by the shell's rules for blanks and quotes; nothing is expanded.
private struct WordSplitter {
  struct Word {
    var key: String?
    var value: String
  }

  private var rest: Substring.UnicodeScalarView
  private let keys: CommandText.Keys

  init(_ text: String, keys: CommandText.Keys) {
    rest = Substring(text).unicodeScalars
    self.keys = keys
  }

  /// The next word, nil at the end.
  mutating func next() throws(ControlError) -> Word? {
    while let first = rest.first, Self.isBlank(first) { rest.removeFirst() }
    if rest.isEmpty { return nil }
    var key: String?
    var value = ""
    var isPlain = true
    while let scalar = rest.first, !Self.isBlank(scalar) {
      rest.removeFirst()
      switch scalar {
      case "'":
        isPlain = false
        value += try quoted(until: "'")
      case "\"":
        isPlain = false
        value += try quoted(until: "\"")
      case "\\":
        isPlain = false
        guard let escaped = rest.popFirst() else { throw .invalid("a backslash ends the command") }
        value.unicodeScalars.append(escaped)
      case "=" where key == nil && isPlain && isKey(value):
        key = value
        value = ""
      case "\n":
        throw .invalid("a command is one line")
      default:
        value.unicodeScalars.append(scalar)
      }
    }
    return Word(key: key, value: value)
  }

  private mutating func quoted(until end: Unicode.Scalar) throws(ControlError) -> String {
    var value = ""
    while let scalar = rest.popFirst() {
      if scalar == end { return value }
      if scalar == "\\", end == "\"", let escaped = rest.first,
        ["\"", "\\", "$", "`"].contains(escaped)
      {
        value.unicodeScalars.append(escaped)
        rest.removeFirst()
      } else {
        value.unicodeScalars.append(scalar)
      }
    }
    throw .invalid("a quote (\(end)) is not closed")
  }

  private static func isBlank(_ scalar: Unicode.Scalar) -> Bool {
    scalar == " " || scalar == "\t" || scalar == "\r"
  }

  private func isKey(_ text: String) -> Bool {
    var isFirst = true
    for byte in text.utf8 {
      switch byte {
      case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"): break
      case UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "_"):
        if isFirst && keys == .options { return false }
      case UInt8(ascii: "-"):
        if isFirst { return false }
      case UInt8(ascii: "."):
        if isFirst || keys == .options { return false }
      default: return false
      }
      isFirst = false
    }
    return !isFirst
  }
}
