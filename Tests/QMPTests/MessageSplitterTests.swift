import TestSupport
import Testing

@testable import QMP

@Suite struct MessageSplitterTests {
  /// What was found, in short: values as texts, faults as their reasons behind a `!`.
  private static func split(_ parts: [[UInt8]]) -> [String] {
    var splitter = MessageSplitter()
    return parts.flatMap { splitter.add($0) }.map { piece in
      switch piece {
      case .value(let bytes): String(decoding: bytes, as: UTF8.self)
      case .fault(let fault): "!" + fault.sentence.replacing("JSON parse error, ", with: "")
      }
    }
  }

  struct Case: CustomTestStringConvertible {
    var input: String
    var pieces: [String]

    var testDescription: String { input }

    init(_ input: String, _ pieces: String...) {
      self.input = input
      self.pieces = pieces
    }
  }

  static let cases = [
    Case(""),
    Case(" \r\n\t"),
    Case("{}", "{}"),
    Case("{}{}", "{}", "{}"),
    Case("{\"a\": [1, {}]}\n", "{\"a\": [1, {}]}"),
    Case("{\"a\": \"}\"}[]", "{\"a\": \"}\"}", "[]"),
    Case("{\"a\": \"\\\"}\"}", "{\"a\": \"\\\"}\"}"),
    Case("{'a': '}\"'}", "{'a': '}\"'}"),
    Case("{'a': '\\'}'}", "{'a': '\\'}'}"),
    Case("5 true\nnull,", "5", "true", "null", ","),
    Case("a,b ", "a", ",", "b"),
    Case("{}x{}", "{}", "x", "{}"),
    Case("5{}", "5", "{}"),
    Case("\"x\" 'y'", "\"x\"", "'y'"),
    Case("{\"a\""),
    Case("12"),
    Case("}{}", "}", "{}"),
    Case("{]{}", "{]", "{}"),
    Case("{\"a\":[}]{}", "{\"a\":[}]", "{}"),
    // Passed over up to a mark or the end of the line.
    Case("@@ \t\"garbage\" {}{}", "!stray '@'", "{}", "{}"),
    Case("{\"a\": #1}\n{}", "!stray '#'", "}", "{}"),
    Case("{\"a\": 01}\n{}", "!stray '01'", "}", "{}"),
    Case("{\"a\": 1.}\n{}", "!stray '1.}'", "{}"),
    Case("{\"a\": -b}\n{}", "!stray '-b'", "}", "{}"),
    Case("{\"a\n\"}\n{}", "!stray '\"a\n'", "}", "{}"),
    Case("\u{1}{}", "!stray '\u{1}'", "{}"),
    Case("{\"a\u{ffff}\u{1}", "!stray '\"a\u{fffd}\u{1}'"),
  ]

  @Test("messages are found wherever a read ends", arguments: cases)
  func found(_ test: Case) {
    let bytes = Array(test.input.utf8)
    #expect(Self.split([bytes]) == test.pieces)
    #expect(Self.split(bytes.map { [$0] }) == test.pieces)
    for cut in bytes.indices {
      #expect(Self.split([Array(bytes[..<cut]), Array(bytes[cut...])]) == test.pieces)
    }
  }

  @Test("a byte that no JSON has brings a client that lost its place back")
  func reset() {
    for lost in ["", "{\"execute\": \"x", "{\"execute\"", "[[", "12"] {
      let found = Self.split([Array(lost.utf8), [0xff], Array("\n{}".utf8)])
      #expect(found.count >= 2 && found.last == "{}", "\(lost)")
    }
  }

  @Test("brackets beyond the deepest are told once, and those that are too many one by one")
  func depth() {
    let most = String(repeating: "[", count: JSONParser.deepest)
    #expect(
      Self.split([Array("\(most)[]] {}".utf8)])
        == ["!JSON nesting depth limit exceeded", "]", "]", "{}"])
  }

  @Test(
    "a message has a most, and what is longer is one fault", arguments: [-1, 0, 1])
  func limit(_ excess: Int) {
    let text = "[" + String(repeating: " ", count: MessageSplitter.limit - 2 + excess) + "]"
    let found = Self.split([Array(text.utf8), Array("\n{}".utf8)])
    #expect(
      found == [excess > 0 ? "!JSON token size limit exceeded" : text, "{}"])
  }

  @Test("hostile bytes never keep more than one message, and leave the next line good")
  func hostile() {
    var generator = Seed.generator("hostile messages")
    for _ in 0..<50 {
      var splitter = MessageSplitter()
      for _ in 0..<64 {
        _ = splitter.add(generator.bytes(1024))
        #expect(splitter.bytes.count <= MessageSplitter.limit)
      }
      // Out of whatever it is in, and to the next line.
      _ = splitter.add([0xff, UInt8(ascii: "\n")])
      #expect(splitter.add(Array("{}".utf8)) == [.value(Array("{}".utf8))])
    }
  }
}
