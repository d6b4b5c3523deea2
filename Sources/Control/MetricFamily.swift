/// Numbers of one meaning, by their labels, as Prometheus's text format 0.0.4 has them.
struct MetricFamily: Sendable {
  /// How a number behaves.
  enum Kind: String, Sendable {
    /// It only grows, but for a new mount.
    case counter
    /// It goes up and down.
    case gauge
  }

  /// A number, exact in the text.
  enum Value: Sendable {
    case count(UInt64)
    case nanoseconds(UInt64)
    case claim(Bool)
  }

  /// What a number is about.
  struct Label: Sendable {
    var name: String
    var value: String

    init(_ name: String, _ value: String) {
      self.name = name
      self.value = value
    }
  }

  private let name: String
  private let kind: Kind
  private let help: String
  private var lines: [String] = []

  /// An empty family. The help is a sentence without a line end or a backslash.
  init(_ name: String, _ kind: Kind, help: String) {
    precondition((kind == .counter) == name.hasSuffix("_total"), "counters end in _total")
    self.name = "chainfs_" + name
    self.kind = kind
    self.help = help
  }

  /// Adds a number; no two may have the same labels.
  mutating func add(_ value: Value, _ labels: [Label] = []) {
    let inside = labels.map { "\($0.name)=\"\(Self.escaped($0.value))\"" }.joined(separator: ",")
    lines.append("\(name)\(labels.isEmpty ? "" : "{\(inside)}") \(Self.text(value))\n")
  }

  /// The lines of the family, none where it has no number.
  var text: String {
    if lines.isEmpty { return "" }
    return "# HELP \(name) \(help)\n# TYPE \(name) \(kind.rawValue)\n" + lines.joined()
  }

  private static func text(_ value: Value) -> String {
    switch value {
    case .count(let count): return String(count)
    case .claim(let isTrue): return isTrue ? "1" : "0"
    case .nanoseconds(let time):
      let (seconds, rest) = time.quotientAndRemainder(dividingBy: 1_000_000_000)
      let digits = String(rest)
      return "\(seconds)." + String(repeating: "0", count: 9 - digits.count) + digits
    }
  }

  private static func escaped(_ value: String) -> String {
    var text = ""
    for scalar in value.unicodeScalars {
      switch scalar {
      case "\\": text += "\\\\"
      case "\"": text += "\\\""
      case "\n": text += "\\n"
      default: text.unicodeScalars.append(scalar)
      }
    }
    return text
  }
}
