import FoundationEssentials

@testable import Control

/// What is written to a control file. The first byte of the input chooses the file, the rest is what is
/// written.
enum ControlTarget {
  static func run(_ bytes: [UInt8]) throws {
    var input = FuzzInput(bytes)
    let verbs = ControlVerb.allCases
    let verb = verbs[Int(input.byte()) % verbs.count]
    let written = Array(input.rest)
    _ = try attempt { try ControlCommand(verb, bytes: written) }
    for verb in MountVerb.allCases { _ = try attempt { try MountCommand(verb, bytes: written) } }
    guard let text = String(validating: written, as: UTF8.self) else { return }
    try claimSize(text)
    if written.count > 512 { return }
    try claimJSON(text)
    try claimQuoted(text)
  }

  private static func claimSize(_ text: String) throws {
    guard let size = SizeText.bytes(text) else { return }
    try claim(size <= UInt64(Int64.max), "\(text) does not fit in 63 bits")
    _ = SizeText.forPeople(size)
    try claim(SizeText.bytes(String(size)) == size, "\(size) reads otherwise")
  }

  /// Text that is told as JSON is the same text for whoever reads JSON.
  private static func claimJSON(_ text: String) throws {
    let line = JSONText.object([.init(text, .array([.string(text), .null, .number(.max)]))]).line
    try claim(!line.unicodeScalars.contains("\n"), "JSON of two lines")
    struct Reader: Decodable {
      var key: String
      var value: String

      private struct Name: CodingKey {
        var stringValue: String
        var intValue: Int? { nil }
        init(stringValue: String) { self.stringValue = stringValue }
        init?(intValue: Int) { nil }
      }

      init(from decoder: any Decoder) throws {
        let members = try decoder.container(keyedBy: Name.self)
        key = members.allKeys.first?.stringValue ?? ""
        var values = try members.nestedUnkeyedContainer(forKey: Name(stringValue: key))
        value = try values.decode(String.self)
      }
    }
    let read = try JSONDecoder().decode(Reader.self, from: Data(line.utf8))
    try claim(Array(read.value.utf8) == Array(text.utf8), "JSON changes \(text)")
    try claim(Array(read.key.utf8) == Array(text.utf8), "JSON changes the key \(text)")
  }

  /// Whatever stands in single quotes is one word.
  private static func claimQuoted(_ text: String) throws {
    if text.unicodeScalars.contains("'") || text.unicodeScalars.contains("\0") { return }
    let command = try CommandText(bytes: Array("'\(text)'\n".utf8))
    try claim(command.bare.map { Array($0.utf8) } == Array(text.utf8), "quotes change \(text)")
  }
}
