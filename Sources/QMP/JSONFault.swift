/// Bytes that are no JSON, or too many of them.
struct JSONFault: Error, Equatable {
  /// What is wrong with them, in QEMU's words where it has some.
  var sentence: String

  /// The words stand in an order that is none.
  init(_ reason: String) {
    sentence = "JSON parse error, \(reason)"
  }

  /// Bytes that are no word. QEMU prints them up to the first NUL.
  init(stray bytes: ArraySlice<UInt8>) {
    let text = String(decoding: bytes.prefix { $0 != 0 }, as: UTF8.self).unicodeScalars
    let readable = text.map { JSONString.isNoCharacter($0) ? "\u{fffd}" : $0 }
    self.init("stray '\(String(String.UnicodeScalarView(readable)))'")
  }

  private init(sentence: String) {
    self.sentence = sentence
  }

  /// More brackets stand in one another than may.
  static let tooDeep = JSONFault(sentence: "JSON nesting depth limit exceeded")
  /// A message is longer than it may be.
  static let tooLong = JSONFault(sentence: "JSON token size limit exceeded")
}
