/// A word as a POSIX shell has to be given it, for commands in a sentence.
package struct ShellWord: CustomStringConvertible {
  /// The word, quoted if it needs that.
  package var description: String

  /// Quotes `text` unless every byte of it is plain.
  package init(_ text: String) {
    let plain = text.utf8.allSatisfy { byte in
      switch byte {
      case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
        UInt8(ascii: "0")...UInt8(ascii: "9"):
        true
      default: "/._-+:,=@%".utf8.contains(byte)
      }
    }
    if plain, !text.isEmpty {
      description = text
    } else {
      description =
        "'"
        + text.split(separator: "'", omittingEmptySubsequences: false)
        .joined(separator: "'\\''") + "'"
    }
  }
}
