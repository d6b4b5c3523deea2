import Control
import Testing

@testable import QMP

@Suite struct JSONParserTests {
  @Test(
    "good JSON is read, and numbers keep their digits",
    arguments: [
      ("{}", JSONText.object([])),
      (" [ ] ", .array([])),
      ("null", .null),
      ("[true, false]", .array([.bool(true), .bool(false)])),
      ("-0.25e+10", .numeral("-0.25e+10")),
      ("12345678901234567890123", .numeral("12345678901234567890123")),
      ("0", .numeral("0")), ("-0", .numeral("-0")), ("\"\\ufeff\"", .string("\u{feff}")),
      ("\"\\u00e9\\ud83d\\ude00x\\n\\/\"", .string("\u{e9}\u{1f600}x\n/")),
      ("'it\\'s \"x\"'", .string("it's \"x\"")),
      (
        "{\"a\": {\"b\": [1]}, \"c\": \"\"}",
        .object([
          .init("a", .object([.init("b", .array([.numeral("1")]))])), .init("c", .string("")),
        ])
      ),
    ])
  func good(text: String, value: JSONText) throws {
    #expect(try JSONParser.value(Array(text.utf8)) == value)
  }

  @Test(
    "what is no JSON is refused with its reason",
    arguments: [
      ("", "expecting value"), ("{} {}", "expecting value"), ("[1,]", "expecting value"),
      ("{\"a\": 1,}", "expecting value"), ("{:1}", "expecting value"), ("{]", "expecting value"),
      ("{null: 1}", "key is not a string in object"), ("{nope: 1}", "invalid keyword 'nope'"),
      ("[1 2]", "expected separator in list"),
      ("{\"a\": 1 \"b\": 2}", "expected separator in dict"),
      ("{\"a\"}", "missing : in object pair"), ("{1: 2}", "key is not a string in object"),
      ("{,}", "expecting value"), ("{\"a\": 1, \"a\": 2}", "duplicate key"),
      ("{\"a\": ]", "expecting value"), ("[}", "expecting value"),
      ("nope", "invalid keyword 'nope'"),
      ("01", "stray '01'"), ("-", "stray '-'"), ("1.", "stray '1.'"), ("1.}", "stray '1.}'"),
      ("1e", "stray '1e'"), ("[0e1]", "expected separator in list"), ("+1", "stray '+'"),
      (".5", "stray '.'"), ("a-b", "stray '-b'"),
      ("[-b]", "stray '-b'"), ("True", "stray 'T'"), ("[%d]", "stray '%'"),
      ("\"a", "stray '\"a'"), ("\"\\x\"", "invalid escape sequence in string"),
      ("\"a\tb\"", "stray '\"a\t'"),
      ("\"\\u12\"", "\\u12\" is not a valid Unicode character"),
      ("\"\\u12xz9\"", "\\u12xz is not a valid Unicode character"),
      ("\"\\u\"", "\\u\" is not a valid Unicode character"),
      ("\"\\uffff\"", "\\uffff is not a valid Unicode character"),
      ("\"\\ufdd0\"", "\\ufdd0 is not a valid Unicode character"),
      ("\"\\ud83f\\udfff\"", "\\ud83f\\udfff is not a valid Unicode character"),
      ("\"\\ud800\\u00\"", "\\ud800 is not a valid Unicode character"),
      ("\"\\ud800\"", "\\ud800 is not a valid Unicode character"),
      ("\"\\ud800\\u0041\"", "\\ud800 is not a valid Unicode character"),
      ("\"\\udc00\"", "\\udc00 is not a valid Unicode character"),
      ("\"\\u0000\"", "\\u0000 is not a valid Unicode character"),
    ])
  func bad(text: String, reason: String) {
    let fault = #expect(throws: JSONFault.self) { try JSONParser.value(Array(text.utf8)) }
    #expect(fault == JSONFault(reason))
  }

  @Test(
    "a string has to be UTF-8, of characters",
    arguments: [
      [0xc0, 0x80], [0xc3], [0xed, 0xa0, 0x80], [0xef, 0xbf, 0xbf], [0xef, 0xb7, 0x90],
    ])
  func encoding(bytes: [UInt8]) {
    let quote = [UInt8(ascii: "\"")]
    let fault = #expect(throws: JSONFault.self) { try JSONParser.value(quote + bytes + quote) }
    #expect(fault == JSONFault("invalid UTF-8 sequence in string"))
  }

  @Test("brackets stand in one another so deep and no deeper")
  func depth() throws {
    let most = JSONParser.deepest
    func text(_ depth: Int) -> [UInt8] {
      Array((String(repeating: "[", count: depth) + String(repeating: "]", count: depth)).utf8)
    }
    _ = try JSONParser.value(text(most))
    let fault = #expect(throws: JSONFault.self) { try JSONParser.value(text(most + 1)) }
    #expect(fault == .tooDeep)
  }
}
