// What QEMU takes for a character: all of Unicode but halves of pairs and what stands for none, which it
// calls a fault of the escape, or of the encoding. U+0000 it takes too; here it is refused, for no path
// and no name may have it.

/// A string of JSON with its quotes, as the lexer found it.
struct JSONString {
  private let word: [UInt8]
  private var place = 1

  /// - Parameter word: begins and ends with the same quote.
  init(_ word: ArraySlice<UInt8>) {
    self.word = Array(word)
  }

  /// The text that it stands for.
  mutating func text() throws(JSONFault) -> String {
    var text: [UInt8] = []
    while place < word.count - 1 {
      let byte = word[place]
      if byte == UInt8(ascii: "\\") {
        text += try escaped()
      } else {
        text.append(byte)
        place += 1
      }
    }
    guard let string = String(validating: text, as: UTF8.self),
      !string.unicodeScalars.contains(where: Self.isNoCharacter)
    else { throw JSONFault("invalid UTF-8 sequence in string") }
    return string
  }

  private mutating func escaped() throws(JSONFault) -> [UInt8] {
    // The lexer saw to it that something follows, and that it is not the last quote.
    let byte = word[place + 1]
    if byte == UInt8(ascii: "u") { return try escapedScalar() }
    place += 2
    switch byte {
    case UInt8(ascii: "\""), UInt8(ascii: "\\"), UInt8(ascii: "/"), UInt8(ascii: "'"):
      return [byte]
    case UInt8(ascii: "b"): return [0x08]
    case UInt8(ascii: "f"): return [0x0c]
    case UInt8(ascii: "n"): return [0x0a]
    case UInt8(ascii: "r"): return [0x0d]
    case UInt8(ascii: "t"): return [0x09]
    default: throw JSONFault("invalid escape sequence in string")
    }
  }

  private mutating func escapedScalar() throws(JSONFault) -> [UInt8] {
    let start = place
    let first = fourDigits(at: place)
    place += 6
    var number = first
    if let high = first, (0xd800..<0xdc00).contains(high),
      word[place...].starts(with: [UInt8(ascii: "\\"), UInt8(ascii: "u")])
    {
      number = nil
      if let low = fourDigits(at: place), (0xdc00..<0xe000).contains(low) {
        number = 0x10000 + (high - 0xd800) << 10 + (low - 0xdc00)
        place += 6
      }
    }
    guard let number, number != 0, let scalar = Unicode.Scalar(number), !Self.isNoCharacter(scalar)
    else {
      let escape = word[start..<min(place, word.count)]
      throw JSONFault(
        "\(String(decoding: escape, as: UTF8.self)) is not a valid Unicode character")
    }
    return Array(String(scalar).utf8)
  }

  /// The number of the escape that begins at a place, nil if those are not its digits.
  private func fourDigits(at start: Int) -> UInt32? {
    var number: UInt32 = 0
    for place in start + 2..<start + 6 {
      guard place < word.count,
        let digit = Character(Unicode.Scalar(word[place])).hexDigitValue
      else { return nil }
      number = number << 4 | UInt32(digit)
    }
    return number
  }

  /// What Unicode says is none, and never will be.
  static func isNoCharacter(_ scalar: Unicode.Scalar) -> Bool {
    (0xfdd0...0xfdef).contains(scalar.value) || scalar.value & 0xfffe == 0xfffe
  }
}
