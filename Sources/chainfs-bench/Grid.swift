import Foundation

/// A table of words, as people read it.
struct Grid {
  var head: [String]
  /// Each as long as the head.
  var rows: [[String]] = []
  /// How many columns hold words, from the left; the others hold numbers.
  var wordColumns = 2

  /// Columns of equal width, for a terminal.
  var text: String {
    let all = [head] + rows
    let widths = head.indices.map { column in all.map { $0[column].count }.max() ?? 0 }
    return all.map { row in
      zip(row, widths).enumerated().map { column, cell in
        let room = String(repeating: " ", count: cell.1 - cell.0.count)
        return column < wordColumns ? cell.0 + room : room + cell.0
      }.joined(separator: "  ")
    }.joined(separator: "\n")
  }

  /// A table of Markdown.
  var markdown: String {
    let rule = head.indices.map { $0 < wordColumns ? "---" : "--:" }
    return ([head, rule] + rows).map { "| " + $0.joined(separator: " | ") + " |" }
      .joined(separator: "\n")
  }

  /// As many digits as mean something.
  static func number(_ value: Double?) -> String {
    guard let value else { return "" }
    if value == 0 { return "0" }
    return String(format: value >= 100 ? "%.0f" : value >= 1 ? "%.1f" : "%.3f", value)
  }

  /// How many times as large one is; nothing where one is missing.
  static func ratio(_ one: Double?, _ other: Double?) -> String {
    guard let one, let other, (one / other).isFinite else { return "" }
    return times(one / other)
  }

  /// A factor.
  static func times(_ value: Double) -> String {
    String(format: value >= 100 ? "%.0f x" : value >= 0.1 ? "%.2f x" : "%.4f x", value)
  }
}
