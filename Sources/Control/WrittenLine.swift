/// One write(2) to a control file, which is one line.
package enum WrittenLine {
  /// Most bytes of a line, the newline included.
  package static let limit = 4095

  /// The line as text, without the newline at its end.
  package static func text(of bytes: [UInt8]) throws(ControlError) -> String {
    if bytes.count > limit {
      throw .invalid("a command has at most \(limit) bytes, this one has \(bytes.count)")
    }
    if bytes.contains(0) { throw .invalid("a command must not contain a NUL byte") }
    guard var text = String(validating: bytes, as: UTF8.self) else {
      throw .invalid("a command has to be valid UTF-8")
    }
    if text.unicodeScalars.last == "\n" { text.unicodeScalars.removeLast() }
    return text
  }
}
