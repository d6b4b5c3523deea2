// The words of a line of the human monitor, as QEMU takes them: blanks stand between words, a word in
// double quotes may hold blanks, and options of one letter come before the arguments.

/// Takes the arguments of a command off its line, from the left.
struct MonitorWords {
  /// An argument that is not what was expected; QEMU's words for it.
  struct Fault: Error, Equatable {
    var text: String

    init(_ text: String) {
      self.text = text
    }
  }

  private var rest: Substring.UTF8View
  /// The command, as it stands before the words of a complaint.
  let command: String

  init(_ rest: Substring, of command: String) {
    self.rest = rest.utf8
    self.command = command
  }

  private mutating func skipBlanks() {
    rest = rest.drop(while: Self.isBlank)
  }

  /// There is another argument.
  mutating func hasMore() -> Bool {
    skipBlanks()
    return !rest.isEmpty
  }

  /// Takes the options that are there; `known` are the letters.
  mutating func options(_ known: String) throws(Fault) -> Set<Character> {
    var found: Set<Character> = []
    while hasMore(), rest.first == UInt8(ascii: "-") {
      let text = String(Substring(rest.prefix(2)))
      guard let letter = text.last, text.utf8.count == 2, known.contains(letter) else {
        throw Fault("\(command): unsupported option -\(text.dropFirst())")
      }
      rest = rest.dropFirst(2)
      found.insert(letter)
    }
    return found
  }

  /// Passes over a word if it is the next one and not the last.
  mutating func skip(_ word: String) {
    skipBlanks()
    let later = rest.dropFirst(word.utf8.count)
    guard rest.starts(with: word.utf8), let next = later.first, Self.isBlank(next) else { return }
    if !later.allSatisfy(Self.isBlank) { rest = later }
  }

  /// A word that has to be there; `name` is what is missing otherwise.
  mutating func word(_ name: String) throws(Fault) -> String {
    if let word = try optionalWord(name) { return word }
    throw Fault("\(command): \(name) expected")
  }

  mutating func optionalWord(_ name: String) throws(Fault) -> String? {
    guard hasMore() else { return nil }
    guard rest.first == UInt8(ascii: "\"") else {
      let word = rest.prefix { !Self.isBlank($0) }
      rest = rest.dropFirst(word.count)
      return String(Substring(word))
    }
    rest = rest.dropFirst()
    var word: [UInt8] = []
    while let byte = rest.popFirst() {
      switch byte {
      case UInt8(ascii: "\""): return String(decoding: word, as: UTF8.self)
      case UInt8(ascii: "\\"):
        switch rest.popFirst() {
        case UInt8(ascii: "n"): word.append(UInt8(ascii: "\n"))
        case UInt8(ascii: "r"): word.append(UInt8(ascii: "\r"))
        case .some(let escaped)
        where [UInt8(ascii: "\\"), UInt8(ascii: "'"), UInt8(ascii: "\"")].contains(escaped):
          word.append(escaped)
        default: throw Fault("\(command): \(name) expected")
        }
      default: word.append(byte)
      }
    }
    throw Fault("\(command): \(name) expected")
  }

  /// A size in bytes, MiB unless a suffix says otherwise; nil at the end of the line. What stands right
  /// behind it is the next argument.
  mutating func optionalSize() throws(Fault) -> Int64? {
    guard hasMore() else { return nil }
    guard let (bytes, length) = MonitorSize.prefix(of: rest) else { throw Fault("invalid size") }
    rest = rest.dropFirst(length)
    return bytes
  }

  mutating func size() throws(Fault) -> Int64 {
    if let size = try optionalSize() { return size }
    throw Fault("invalid size")
  }

  /// Refuses what is left.
  mutating func finish() throws(Fault) {
    if hasMore() { throw Fault("\(command): extraneous characters at the end of line") }
  }

  static func isBlank(_ byte: UInt8) -> Bool {
    switch byte {
    case UInt8(ascii: " "), 0x09...0x0d: true
    default: false
    }
  }
}
