// Where one message ends and the next begins.
//
// QMP has no frames: a message is a JSON value, whatever stands between them. Strings and brackets are
// followed here and nothing else; whether the value is good JSON is the parser's to say. A string is
// quoted by " or, as QEMU lets people write in the shell, by '.
//
//     between --"{" or "["--> nested --brackets closed--> between, a value is there
//             --letter, digit--> word --anything else--> the same
//     all     --a byte that no JSON has, or too many of them--> skipping --newline--> between
//
// A client that lost its place sends a byte 0xff, which is such a byte everywhere, and a newline. Memory is bounded
// by the limit of a message, whatever comes.

/// Takes a stream of bytes apart into messages.
struct MessageSplitter {
  /// The most bytes of one message.
  static let limit = 256 << 10

  /// What was found.
  enum Piece: Equatable {
    /// The bytes of a value.
    case value([UInt8])
    /// Something that is none; what follows up to the end of the line is passed over.
    case fault(JSONFault)
  }

  private enum Place {
    case between
    case word
    case nested
    case skipping
  }

  private var place = Place.between
  /// What there is of a message that has not ended.
  private(set) var bytes: [UInt8] = []
  private var depth = 0
  /// The quote that ends the string that it is in.
  private var quote: UInt8?
  private var isEscaped = false

  /// Takes the next bytes; gives what they complete.
  mutating func add(_ input: some Sequence<UInt8>) -> [Piece] {
    var pieces: [Piece] = []
    for byte in input { add(byte, &pieces) }
    return pieces
  }

  private mutating func add(_ byte: UInt8, _ pieces: inout [Piece]) {
    switch place {
    case .skipping:
      if byte == UInt8(ascii: "\n") { reset() }
    case .between: begin(byte, &pieces)
    case .word:
      if Self.isWordPart(byte) { return append(byte, &pieces) }
      end(&pieces)
      begin(byte, &pieces)
    case .nested: nest(byte, &pieces)
    }
  }

  private mutating func begin(_ byte: UInt8, _ pieces: inout [Piece]) {
    switch byte {
    case UInt8(ascii: " "), UInt8(ascii: "\t"), UInt8(ascii: "\r"), UInt8(ascii: "\n"): break
    case UInt8(ascii: "{"), UInt8(ascii: "["), UInt8(ascii: "\""), UInt8(ascii: "'"):
      place = .nested
      nest(byte, &pieces)
    case _ where Self.isWordPart(byte):
      place = .word
      append(byte, &pieces)
    case UInt8(ascii: "}"), UInt8(ascii: "]"), UInt8(ascii: ","), UInt8(ascii: ":"):
      fail("expecting value", &pieces)
    default: fail(Self.stray(byte), &pieces)
    }
  }

  private mutating func nest(_ byte: UInt8, _ pieces: inout [Piece]) {
    if let quote {
      // No control character may stand in a string, and the last two bytes never do in UTF-8.
      if byte < 0x20 || byte >= 0xfe { return fail("invalid character in string", &pieces) }
      append(byte, &pieces)
      if isEscaped {
        isEscaped = false
      } else if byte == UInt8(ascii: "\\") {
        isEscaped = true
      } else if byte == quote {
        self.quote = nil
        if depth == 0 { end(&pieces) }
      }
      return
    }
    switch byte {
    case UInt8(ascii: "\""), UInt8(ascii: "'"): quote = byte
    case UInt8(ascii: "{"), UInt8(ascii: "["): depth += 1
    case UInt8(ascii: "}"), UInt8(ascii: "]"): depth -= 1
    case UInt8(ascii: " "), UInt8(ascii: "\t"), UInt8(ascii: "\r"), UInt8(ascii: "\n"),
      UInt8(ascii: ","), UInt8(ascii: ":"):
      break
    case _ where Self.isWordPart(byte): break
    default: return fail(Self.stray(byte), &pieces)
    }
    append(byte, &pieces)
    if depth == 0, quote == nil, place == .nested { end(&pieces) }
  }

  private mutating func append(_ byte: UInt8, _ pieces: inout [Piece]) {
    if bytes.count == Self.limit { return fail("JSON token size limit exceeded", &pieces) }
    bytes.append(byte)
  }

  private mutating func end(_ pieces: inout [Piece]) {
    pieces.append(.value(bytes))
    reset()
  }

  private mutating func fail(_ reason: String, _ pieces: inout [Piece]) {
    // What begins after the fault on the same line is passed over; the next line may be good again.
    reset()
    place = .skipping
    pieces.append(.fault(JSONFault(reason)))
  }

  private mutating func reset() {
    self = MessageSplitter()
  }

  private static func stray(_ byte: UInt8) -> String {
    // What is not ASCII is told as QEMU tells it.
    (0x20..<0x7f).contains(byte)
      ? "stray '\(Unicode.Scalar(byte))'" : "stray '\u{fffd}'"
  }

  private static func isWordPart(_ byte: UInt8) -> Bool {
    switch byte {
    case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
      UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "-"), UInt8(ascii: "+"),
      UInt8(ascii: "."), UInt8(ascii: "_"):
      true
    default: false
    }
  }
}
