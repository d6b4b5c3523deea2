// Where one message ends and the next begins.
//
// QMP has no frames: a message is a JSON value, whatever stands between them. Words are told apart and
// brackets are counted here, and nothing else; whether the words are a good value is the parser's to say.
//
//     no word yet --"{" or "["--> nested --as many closed--> a value is there
//                 --any other word--> a value is there
//     all         --bytes that are no word--> no word yet: what was there is dropped, see JSONLexer
//                 --too many bytes--> skipping --newline--> no word yet
//
// Of closing brackets there may be too many, or those of the wrong kind: that ends a value as well.
// Memory is bounded by the limit of a message, whatever comes.

/// Takes a stream of bytes apart into messages.
struct MessageSplitter {
  /// The most bytes of one message.
  static let limit = 256 << 10

  /// What was found.
  enum Piece: Equatable {
    /// The bytes of what may be a value: whole words.
    case value([UInt8])
    /// Something that is none.
    case fault(JSONFault)
  }

  private var lexer = JSONLexer()
  private var isSkipping = false
  /// What there is of a message that has not ended.
  private(set) var bytes: [UInt8] = []
  /// Where in them the word begins that has not ended.
  private var wordStart = 0
  private var braces = 0
  private var brackets = 0

  /// Takes the next bytes; gives what they complete.
  mutating func add(_ input: some Sequence<UInt8>) -> [Piece] {
    var pieces: [Piece] = []
    for byte in input { add(byte, &pieces) }
    return pieces
  }

  private mutating func add(_ byte: UInt8, _ pieces: inout [Piece]) {
    if isSkipping {
      isSkipping = byte != UInt8(ascii: "\n")
      return
    }
    if bytes.count == Self.limit {
      pieces.append(.fault(.tooLong))
      self = MessageSplitter()
      isSkipping = byte != UInt8(ascii: "\n")
      return
    }
    var step = lexer.take(byte)
    if case .follows(let kind) = step {
      end(kind, &pieces)
      step = lexer.take(byte)
    }
    switch step {
    case .between:
      if bytes.isEmpty { return }
      bytes.append(byte)
      wordStart = bytes.count
    case .part: bytes.append(byte)
    case .ends(let kind):
      bytes.append(byte)
      end(kind, &pieces)
    case .follows: preconditionFailure("a word of no bytes")
    case .stray:
      bytes.append(byte)
      pieces.append(.fault(JSONFault(stray: bytes[wordStart...])))
      reset()
    }
  }

  private mutating func end(_ kind: JSONLexer.Kind, _ pieces: inout [Piece]) {
    wordStart = bytes.count
    switch kind {
    case .mark(UInt8(ascii: "{")): braces += 1
    case .mark(UInt8(ascii: "}")): braces -= 1
    case .mark(UInt8(ascii: "[")): brackets += 1
    case .mark(UInt8(ascii: "]")): brackets -= 1
    case .mark, .number, .keyword, .string: break
    }
    if braces + brackets > JSONParser.deepest {
      pieces.append(.fault(.tooDeep))
      reset()
    } else if min(braces, brackets) < 0 || max(braces, brackets) == 0 {
      pieces.append(.value(bytes))
      reset()
    }
  }

  /// Begins a message; the lexer stays where it is.
  private mutating func reset() {
    bytes = []
    wordStart = 0
    braces = 0
    brackets = 0
  }
}
