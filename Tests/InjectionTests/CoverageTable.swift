/// What the driver says of one site: how often it was seen and failed, and what came of it.
struct CoverageRow {
  /// The system call, the function of `SystemCall`, who asks for it, and for whom.
  var call: String
  var wrapper: String
  var function: String
  var caller: String
  var seen = 0
  var failed: [String: Int] = [:]
  var outcomes: [String: Int] = [:]

  /// The module and the name of the function that asks, as the sources have them.
  var source: SourceSite {
    let parts = function.split(separator: ".")
    return SourceSite(
      module: String(parts.first ?? "?"), function: String(parts.last ?? "?"), call: wrapper)
  }
}

/// The driver's lines, put together by site.
struct CoverageTable {
  private(set) var rows: [[String]: CoverageRow] = [:]
  private(set) var findings: [String] = []
  private(set) var runs = 0

  init(_ output: String) {
    for line in output.split(separator: "\n") {
      let words = line.split(separator: "\t", omittingEmptySubsequences: false).map(String.init)
      switch words.first {
      case "site" where words.count == 7: row(words) { $0.seen += Int(words[6]) ?? 0 }
      case "hit" where words.count == 9:
        row(words) { row in
          row.failed[words[6], default: 0] += Int(words[8]) ?? 0
          row.outcomes[words[7], default: 0] += Int(words[8]) ?? 0
        }
      case "runs" where words.count == 4: runs += Int(words[2]) ?? 0
      case "finding": findings.append(words.dropFirst().joined(separator: " "))
      default: break
      }
    }
  }

  private mutating func row(_ words: [String], _ change: (inout CoverageRow) -> Void) {
    change(
      &rows[
        Array(words[2..<6]),
        default: CoverageRow(
          call: words[2], wrapper: words[3], function: words[4], caller: words[5])])
  }

  /// How often the sites of the sources were failed, by fault.
  var failures: [SourceSite: [String: Int]] {
    var result: [SourceSite: [String: Int]] = [:]
    for row in rows.values {
      result[row.source, default: [:]].merge(row.failed) { $0 + $1 }
    }
    return result
  }

  /// The table for a reader.
  var text: String {
    func list(_ counts: [String: Int]) -> String {
      counts.isEmpty
        ? "-"
        : counts.sorted { $0.key < $1.key }.map { "\($0.key) \($0.value)" }.joined(separator: ", ")
    }
    func pad(_ text: String, _ width: Int) -> String {
      text + String(repeating: " ", count: max(1, width - text.count))
    }
    var lines = [
      pad("system call", 17) + pad("made by", 38) + pad("for", 44) + pad("seen", 7)
        + "failed: outcome"
    ]
    for (_, row) in rows.sorted(by: { $0.key.lexicographicallyPrecedes($1.key) }) {
      lines.append(
        pad(row.call, 17) + pad(row.function, 38) + pad(row.caller, 44) + pad("\(row.seen)", 7)
          + list(row.failed) + ": " + list(row.outcomes))
    }
    return lines.joined(separator: "\n")
  }
}
