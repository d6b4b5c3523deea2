internal import Control

// JSON as QMP takes it: strict, but for strings in single quotes, which QEMU takes as well. A number
// keeps the digits that it was written with, for an id goes back as it came. Of several faults the first is told.

/// Makes a value of the bytes of one message.
struct JSONParser {
  /// How deep brackets may stand in one another. The parser calls itself once for each.
  static let deepest = 1024

  private struct Word {
    var kind: JSONLexer.Kind
    var bytes: ArraySlice<UInt8>

    func isMark(_ byte: UInt8) -> Bool { kind == .mark(byte) }
  }

  private let bytes: [UInt8]
  private var lexer = JSONLexer()
  private var place = 0
  private var depth = 0
  /// The word that comes next, nil behind the last.
  private var next: Word?

  /// The value that the bytes are, with nothing but blanks around it.
  static func value(_ bytes: [UInt8]) throws(JSONFault) -> JSONText {
    var parser = JSONParser(bytes: bytes)
    try parser.advance()
    let value = try parser.value()
    if parser.next != nil { throw JSONFault("expecting value") }
    return value
  }

  private init(bytes: [UInt8]) {
    self.bytes = bytes
  }

  /// Finds the next word.
  private mutating func advance() throws(JSONFault) {
    var start = place
    while place < bytes.count {
      switch lexer.take(bytes[place]) {
      case .between:
        place += 1
        start = place
      case .part: place += 1
      case .ends(let kind):
        place += 1
        next = Word(kind: kind, bytes: bytes[start..<place])
        return
      case .follows(let kind):
        next = Word(kind: kind, bytes: bytes[start..<place])
        return
      case .stray: throw JSONFault(stray: bytes[start...place])
      }
    }
    next = nil
    if start == place { return }
    // What follows the last byte is nothing, as behind a blank.
    guard case .follows(let kind) = lexer.take(UInt8(ascii: " ")) else {
      throw JSONFault(stray: bytes[start...])
    }
    next = Word(kind: kind, bytes: bytes[start...])
  }

  private mutating func skip(_ mark: UInt8) throws(JSONFault) -> Bool {
    guard next?.isMark(mark) == true else { return false }
    try advance()
    return true
  }

  private mutating func value() throws(JSONFault) -> JSONText {
    guard let word = next else { throw JSONFault("expecting value") }
    switch word.kind {
    case .mark(UInt8(ascii: "{")):
      return try nested { parser throws(JSONFault) in try parser.object() }
    case .mark(UInt8(ascii: "[")):
      return try nested { parser throws(JSONFault) in try parser.array() }
    case .mark: throw JSONFault("expecting value")
    case .number:
      try advance()
      return .numeral(String(decoding: word.bytes, as: UTF8.self))
    case .keyword:
      try advance()
      return try Self.keyword(String(decoding: word.bytes, as: UTF8.self))
    case .string:
      try advance()
      var string = JSONString(word.bytes)
      return .string(try string.text())
    }
  }

  private mutating func nested(
    _ body: (inout JSONParser) throws(JSONFault) -> JSONText
  ) throws(JSONFault) -> JSONText {
    depth += 1
    if depth > Self.deepest { throw JSONFault.tooDeep }
    defer { depth -= 1 }
    try advance()
    return try body(&self)
  }

  private mutating func object() throws(JSONFault) -> JSONText {
    var members: [JSONText.Member] = []
    var names: Set<String> = []
    if try skip(UInt8(ascii: "}")) { return .object(members) }
    repeat {
      guard case .string(let name) = try value() else {
        throw JSONFault("key is not a string in object")
      }
      if try !skip(UInt8(ascii: ":")) { throw JSONFault("missing : in object pair") }
      let value = try value()
      if !names.insert(name).inserted { throw JSONFault("duplicate key") }
      members.append(.init(name, value))
    } while try skip(UInt8(ascii: ","))
    if try !skip(UInt8(ascii: "}")) { throw JSONFault("expected separator in dict") }
    return .object(members)
  }

  private mutating func array() throws(JSONFault) -> JSONText {
    var values: [JSONText] = []
    if try skip(UInt8(ascii: "]")) { return .array(values) }
    repeat { values.append(try value()) } while try skip(UInt8(ascii: ","))
    if try !skip(UInt8(ascii: "]")) { throw JSONFault("expected separator in list") }
    return .array(values)
  }

  private static func keyword(_ word: String) throws(JSONFault) -> JSONText {
    switch word {
    case "null": return .null
    case "true": return .bool(true)
    case "false": return .bool(false)
    default: throw JSONFault("invalid keyword '\(word)'")
    }
  }
}
