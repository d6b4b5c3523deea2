// How bytes become the words of JSON, a byte at a time, as QEMU does it: what is wrong with a byte is found here, and
// what is wrong with the order of words by the parser.
//
//     start --"{" "}" "[" "]" ":" ","--> start, a mark
//           --quote--> string --the same quote--> start         (with escapes in between)
//           --digit, "-"--> number --what is no part of it--> start, the byte is looked at again
//           --letter--> keyword --the same
//           --blank--> start
//     all   --a byte that does not belong there--> lost
//     lost  --a control character but a tab, 0xfe, 0xff, a mark--> start, the byte is looked at again
//
// A client that does not know where the server is sends 0xff, which belongs nowhere, and goes on from there.

/// Tells where the words of JSON end.
struct JSONLexer {
  /// What a word is.
  enum Kind: Equatable {
    /// One of `{`, `}`, `[`, `]`, `:` and `,`.
    case mark(UInt8)
    case number
    case keyword
    /// Its quotes are part of it.
    case string
  }

  /// What a byte is.
  enum Step: Equatable {
    /// It stands between words.
    case between
    /// It is part of a word that goes on.
    case part
    /// It is the last byte of a word.
    case ends(Kind)
    /// A word ended before it; it is to be given again.
    case follows(Kind)
    /// It belongs to nothing, nor does the word that it was to be a part of.
    case stray
  }

  private enum Place {
    case start
    case lost
    case string(quote: UInt8)
    case escape(quote: UInt8)
    case keyword
    case minus
    case zero
    case whole
    case point
    case fraction
    case exponent
    case sign
    case power
  }

  private var place = Place.start

  /// Takes the next byte.
  mutating func take(_ byte: UInt8) -> Step {
    switch place {
    case .start: return begin(byte)
    case .lost:
      guard Self.isMark(byte) || byte >= 0xfe || (byte < 0x20 && byte != UInt8(ascii: "\t")) else {
        return .between
      }
      place = .start
      return begin(byte)
    case .string(let quote):
      if byte == quote { return end(.ends(.string)) }
      let isEscape = byte == UInt8(ascii: "\\")
      return Self.isText(byte) ? go(to: isEscape ? .escape(quote: quote) : place) : stray()
    case .escape(let quote): return Self.isText(byte) ? go(to: .string(quote: quote)) : stray()
    case .keyword: return Self.isLetter(byte) ? .part : end(.follows(.keyword))
    case .minus, .zero, .whole, .point, .fraction, .exponent, .sign, .power: return number(byte)
    }
  }

  private mutating func begin(_ byte: UInt8) -> Step {
    switch byte {
    case UInt8(ascii: " "), UInt8(ascii: "\t"), UInt8(ascii: "\r"), UInt8(ascii: "\n"):
      return .between
    case UInt8(ascii: "\""), UInt8(ascii: "'"): return go(to: .string(quote: byte))
    case UInt8(ascii: "-"): return go(to: .minus)
    case _ where Self.isMark(byte): return .ends(.mark(byte))
    case _ where Self.isLetter(byte): return go(to: .keyword)
    case _ where Self.isDigit(byte): return go(to: byte == UInt8(ascii: "0") ? .zero : .whole)
    default: return stray()
    }
  }

  private mutating func number(_ byte: UInt8) -> Step {
    let isDigit = Self.isDigit(byte)
    let isPoint = byte == UInt8(ascii: ".")
    let isExponent = byte | 0x20 == UInt8(ascii: "e")
    switch place {
    case .minus where isDigit: return go(to: byte == UInt8(ascii: "0") ? .zero : .whole)
    case .zero where isDigit: return stray()
    case .zero where isPoint, .whole where isPoint: return go(to: .point)
    // As in QEMU a zero takes no exponent.
    case .whole where isExponent, .fraction where isExponent: return go(to: .exponent)
    case .whole where isDigit, .fraction where isDigit, .power where isDigit: return .part
    case .point where isDigit: return go(to: .fraction)
    case .exponent where isDigit, .sign where isDigit: return go(to: .power)
    case .exponent where byte == UInt8(ascii: "+") || byte == UInt8(ascii: "-"):
      return go(to: .sign)
    case .zero, .whole, .fraction, .power: return end(.follows(.number))
    default: return stray()
    }
  }

  private mutating func go(to next: Place) -> Step {
    place = next
    return .part
  }

  private mutating func end(_ step: Step) -> Step {
    place = .start
    return step
  }

  private mutating func stray() -> Step {
    place = .lost
    return .stray
  }

  /// No control character may stand in a string, and the last two bytes never do in UTF-8.
  private static func isText(_ byte: UInt8) -> Bool { (0x20..<0xfe).contains(byte) }

  private static func isLetter(_ byte: UInt8) -> Bool {
    (UInt8(ascii: "a")...UInt8(ascii: "z")).contains(byte)
  }

  private static func isDigit(_ byte: UInt8) -> Bool {
    (UInt8(ascii: "0")...UInt8(ascii: "9")).contains(byte)
  }

  private static func isMark(_ byte: UInt8) -> Bool {
    switch byte {
    case UInt8(ascii: "{"), UInt8(ascii: "}"), UInt8(ascii: "["), UInt8(ascii: "]"),
      UInt8(ascii: ":"), UInt8(ascii: ","):
      true
    default: false
    }
  }
}
