internal import Control

// JSON as QMP takes it: strict, but for strings in single quotes, which QEMU takes as well. A number
// keeps the digits that it was written with, for an id goes back as it came.

/// Makes a value of the bytes of one message.
struct JSONParser {
  /// How deep brackets may stand in one another. The parser calls itself once for each.
  static let deepest = 64

  private let bytes: [UInt8]
  private var place = 0
  private var depth = 0

  /// The value that the bytes are, with nothing but blanks around it.
  static func value(_ bytes: [UInt8]) throws(JSONFault) -> JSONText {
    var parser = JSONParser(bytes: bytes)
    let value = try parser.value()
    parser.skipBlanks()
    if parser.place < bytes.count { throw JSONFault("expecting value") }
    return value
  }

  private init(bytes: [UInt8]) {
    self.bytes = bytes
  }

  private var next: UInt8? { place < bytes.count ? bytes[place] : nil }

  private mutating func skipBlanks() {
    while let byte = next, Self.isBlank(byte) { place += 1 }
  }

  private mutating func skip(_ byte: UInt8) -> Bool {
    skipBlanks()
    guard next == byte else { return false }
    place += 1
    return true
  }

  private mutating func value() throws(JSONFault) -> JSONText {
    skipBlanks()
    switch next {
    case UInt8(ascii: "{"): return try nested { parser throws(JSONFault) in try parser.object() }
    case UInt8(ascii: "["): return try nested { parser throws(JSONFault) in try parser.array() }
    case UInt8(ascii: "\""), UInt8(ascii: "'"): return .string(try string())
    case UInt8(ascii: "-"), .some(UInt8(ascii: "0")...UInt8(ascii: "9")): return try number()
    case .some(UInt8(ascii: "a")...UInt8(ascii: "z")): return try keyword()
    default: throw JSONFault("expecting value")
    }
  }

  private mutating func nested(
    _ body: (inout JSONParser) throws(JSONFault) -> JSONText
  ) throws(JSONFault) -> JSONText {
    place += 1
    depth += 1
    if depth > Self.deepest { throw JSONFault("JSON nesting depth limit exceeded") }
    defer { depth -= 1 }
    return try body(&self)
  }

  private mutating func object() throws(JSONFault) -> JSONText {
    var members: [JSONText.Member] = []
    var names: Set<String> = []
    if skip(UInt8(ascii: "}")) { return .object(members) }
    repeat {
      skipBlanks()
      guard let quote = next, Self.isQuote(quote) else {
        throw JSONFault("key is not a string in object")
      }
      let name = try string()
      if !skip(UInt8(ascii: ":")) { throw JSONFault("missing : in object pair") }
      let value = try value()
      if !names.insert(name).inserted { throw JSONFault("duplicate key") }
      members.append(.init(name, value))
    } while skip(UInt8(ascii: ","))
    if !skip(UInt8(ascii: "}")) { throw JSONFault("expected separator in dict") }
    return .object(members)
  }

  private mutating func array() throws(JSONFault) -> JSONText {
    var values: [JSONText] = []
    if skip(UInt8(ascii: "]")) { return .array(values) }
    repeat { values.append(try value()) } while skip(UInt8(ascii: ","))
    if !skip(UInt8(ascii: "]")) { throw JSONFault("expected separator in list") }
    return .array(values)
  }

  private mutating func keyword() throws(JSONFault) -> JSONText {
    let start = place
    while let byte = next, (UInt8(ascii: "a")...UInt8(ascii: "z")).contains(byte) { place += 1 }
    let word = String(decoding: bytes[start..<place], as: UTF8.self)
    switch word {
    case "null": return .null
    case "true": return .bool(true)
    case "false": return .bool(false)
    default: throw JSONFault("invalid keyword '\(word)'")
    }
  }

  private mutating func number() throws(JSONFault) -> JSONText {
    let start = place
    if next == UInt8(ascii: "-") { place += 1 }
    let first = next
    let whole = skipDigits()
    var isGood = whole == 1 || (whole > 1 && first != UInt8(ascii: "0"))
    if next == UInt8(ascii: ".") {
      place += 1
      isGood = skipDigits() > 0 && isGood
    }
    if next == UInt8(ascii: "e") || next == UInt8(ascii: "E") {
      place += 1
      if next == UInt8(ascii: "+") || next == UInt8(ascii: "-") { place += 1 }
      isGood = skipDigits() > 0 && isGood
    }
    if !isGood { throw JSONFault("invalid number") }
    return .numeral(String(decoding: bytes[start..<place], as: UTF8.self))
  }

  private mutating func skipDigits() -> Int {
    let start = place
    while let byte = next, (UInt8(ascii: "0")...UInt8(ascii: "9")).contains(byte) { place += 1 }
    return place - start
  }
}

// MARK: - Strings

extension JSONParser {
  private mutating func string() throws(JSONFault) -> String {
    let quote = next
    place += 1
    var text: [UInt8] = []
    while let byte = next, byte != quote {
      place += 1
      if byte == UInt8(ascii: "\\") {
        text += try escaped()
      } else if byte < 0x20 {
        throw JSONFault("invalid character in string")
      } else {
        text.append(byte)
      }
    }
    guard next == quote else { throw JSONFault("string is not closed") }
    place += 1
    guard let string = String(validating: text, as: UTF8.self) else {
      throw JSONFault("invalid UTF-8 sequence in string")
    }
    return string
  }

  private mutating func escaped() throws(JSONFault) -> [UInt8] {
    guard let byte = next else { throw JSONFault("string is not closed") }
    place += 1
    switch byte {
    case UInt8(ascii: "\""), UInt8(ascii: "\\"), UInt8(ascii: "/"), UInt8(ascii: "'"):
      return [byte]
    case UInt8(ascii: "b"): return [0x08]
    case UInt8(ascii: "f"): return [0x0c]
    case UInt8(ascii: "n"): return [0x0a]
    case UInt8(ascii: "r"): return [0x0d]
    case UInt8(ascii: "t"): return [0x09]
    case UInt8(ascii: "u"): return try escapedScalar()
    default: throw JSONFault("invalid escape sequence in string")
    }
  }

  private mutating func escapedScalar() throws(JSONFault) -> [UInt8] {
    let first = try fourDigits()
    var number = UInt32(first)
    if (0xd800..<0xdc00).contains(first), next == UInt8(ascii: "\\"), place + 1 < bytes.count,
      bytes[place + 1] == UInt8(ascii: "u")
    {
      let start = place
      place += 2
      let second = try fourDigits()
      if (0xdc00..<0xe000).contains(second) {
        number = 0x10000 + (UInt32(first) - 0xd800) << 10 + (UInt32(second) - 0xdc00)
      } else {
        place = start
      }
    }
    guard number != 0, let scalar = Unicode.Scalar(number) else {
      let digits = String(first, radix: 16)
      throw JSONFault(
        "\\u\(String(repeating: "0", count: 4 - digits.count))\(digits) is not a valid Unicode "
          + "character")
    }
    return Array(String(scalar).utf8)
  }

  private mutating func fourDigits() throws(JSONFault) -> UInt16 {
    var number: UInt16 = 0
    for _ in 0..<4 {
      guard let byte = next, let digit = Character(Unicode.Scalar(byte)).hexDigitValue else {
        throw JSONFault("invalid hex escape in string")
      }
      place += 1
      number = number << 4 | UInt16(digit)
    }
    return number
  }

  private static func isBlank(_ byte: UInt8) -> Bool {
    switch byte {
    case UInt8(ascii: " "), UInt8(ascii: "\t"), UInt8(ascii: "\r"), UInt8(ascii: "\n"): true
    default: false
    }
  }

  private static func isQuote(_ byte: UInt8) -> Bool {
    byte == UInt8(ascii: "\"") || byte == UInt8(ascii: "'")
  }
}
