internal import Control

/// The arguments of a command, taken one by one; `finish` refuses what nobody took.
struct Arguments {
  private var members: [JSONText.Member]

  init(_ members: [JSONText.Member]) {
    self.members = members
  }

  private mutating func take(_ name: String) -> JSONText? {
    guard let index = members.firstIndex(where: { $0.name == name }) else { return nil }
    return members.remove(at: index).value
  }

  mutating func string(_ name: String) throws(QMPError) -> String {
    if let value = try optionalString(name) { return value }
    throw QMPError("Parameter '\(name)' is missing")
  }

  mutating func optionalString(_ name: String) throws(QMPError) -> String? {
    switch take(name) {
    case nil: return nil
    case .string(let value): return value
    case .some: throw Self.wrongType(name, "string")
    }
  }

  mutating func bool(_ name: String, otherwise: Bool) throws(QMPError) -> Bool {
    switch take(name) {
    case nil: return otherwise
    case .bool(let value): return value
    case .some: throw Self.wrongType(name, "boolean")
    }
  }

  mutating func integer(_ name: String) throws(QMPError) -> Int64 {
    if let value = try optionalInteger(name) { return value }
    throw QMPError("Parameter '\(name)' is missing")
  }

  mutating func optionalInteger(_ name: String) throws(QMPError) -> Int64? {
    guard let value = take(name) else { return nil }
    guard case .numeral(let digits) = value, let number = Int64(digits) else {
      throw Self.wrongType(name, "integer")
    }
    return number
  }

  mutating func choice<Choice>(_ name: String, otherwise: Choice) throws(QMPError) -> Choice
  where Choice: RawRepresentable<String> {
    guard let word = try optionalString(name) else { return otherwise }
    guard let choice = Choice(rawValue: word) else {
      throw QMPError("Parameter '\(name)' does not accept value '\(word)'")
    }
    return choice
  }

  mutating func optionalStrings(_ name: String) throws(QMPError) -> [String]? {
    guard let value = take(name) else { return nil }
    guard case .array(let values) = value else { throw Self.wrongType(name, "array") }
    var words: [String] = []
    for value in values {
      guard case .string(let word) = value else { throw Self.wrongType(name, "string") }
      words.append(word)
    }
    return words
  }

  func finish() throws(QMPError) {
    if let member = members.first { throw QMPError("Parameter '\(member.name)' is unexpected") }
  }

  private static func wrongType(_ name: String, _ type: String) -> QMPError {
    QMPError("Invalid parameter type for '\(name)', expected: \(type)")
  }
}
