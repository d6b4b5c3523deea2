internal import Control

/// The arguments of a command, taken one by one; `finish` refuses what nobody took.
struct Arguments {
  private var members: [JSONText.Member]
  /// What stands before a name in a complaint: where these are part of another argument, its place.
  private let path: String

  init(_ members: [JSONText.Member], at path: String = "") {
    self.members = members
    self.path = path
  }

  private mutating func take(_ name: String) -> JSONText? {
    guard let index = members.firstIndex(where: { $0.name == name }) else { return nil }
    return members.remove(at: index).value
  }

  mutating func string(_ name: String) throws(QMPError) -> String {
    if let value = try optionalString(name) { return value }
    throw missing(name)
  }

  mutating func optionalString(_ name: String) throws(QMPError) -> String? {
    switch take(name) {
    case nil: return nil
    case .string(let value): return value
    case .some: throw wrongType(name, "string")
    }
  }

  mutating func bool(_ name: String, otherwise: Bool) throws(QMPError) -> Bool {
    switch take(name) {
    case nil: return otherwise
    case .bool(let value): return value
    case .some: throw wrongType(name, "boolean")
    }
  }

  mutating func integer(_ name: String) throws(QMPError) -> Int64 {
    if let value = try optionalInteger(name) { return value }
    throw missing(name)
  }

  mutating func optionalInteger(_ name: String) throws(QMPError) -> Int64? {
    guard let value = take(name) else { return nil }
    guard case .numeral(let digits) = value, let number = Int64(digits) else {
      throw wrongType(name, "integer")
    }
    return number
  }

  mutating func choice<Choice>(_ name: String, otherwise: Choice) throws(QMPError) -> Choice
  where Choice: RawRepresentable<String> {
    guard let word = try optionalString(name) else { return otherwise }
    return try Self.choice(word, of: name)
  }

  private static func choice<Choice>(
    _ word: String, of name: String
  ) throws(QMPError) -> Choice where Choice: RawRepresentable<String> {
    guard let choice = Choice(rawValue: word) else {
      throw QMPError("Parameter '\(name)' does not accept value '\(word)'")
    }
    return choice
  }

  mutating func optionalStrings(_ name: String) throws(QMPError) -> [String]? {
    guard let value = take(name) else { return nil }
    guard case .array(let values) = value else { throw wrongType(name, "array") }
    var words: [String] = []
    for value in values {
      guard case .string(let word) = value else { throw wrongType(name, "string") }
      words.append(word)
    }
    return words
  }

  /// The values of an array that has to be there.
  mutating func array(_ name: String) throws(QMPError) -> [JSONText] {
    switch take(name) {
    case nil: throw missing(name)
    case .array(let values): return values
    case .some: throw wrongType(name, "array")
    }
  }

  /// The members of an object that has to be there.
  mutating func object(_ name: String) throws(QMPError) -> Arguments {
    if let members = try optionalObject(name) { return members }
    throw missing(name)
  }

  mutating func optionalObject(_ name: String) throws(QMPError) -> Arguments? {
    switch take(name) {
    case nil: return nil
    case .object(let members): return Arguments(members, at: "\(path)\(name).")
    case .some: throw wrongType(name, "object")
    }
  }

  /// A word that has to be there, of a few.
  mutating func choice<Choice>(_ name: String) throws(QMPError) -> Choice
  where Choice: RawRepresentable<String> {
    try Self.choice(try string(name), of: name)
  }

  func finish() throws(QMPError) {
    if let member = members.first {
      throw QMPError("Parameter '\(path)\(member.name)' is unexpected")
    }
  }

  private func missing(_ name: String) -> QMPError {
    QMPError("Parameter '\(path)\(name)' is missing")
  }

  private func wrongType(_ name: String, _ type: String) -> QMPError {
    QMPError("Invalid parameter type for '\(path)\(name)', expected: \(type)")
  }
}
