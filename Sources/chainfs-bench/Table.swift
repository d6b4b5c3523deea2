import ArgumentParser
import Foundation

/// The results, as people or programs read them.
struct Table: Codable {
  /// How the table is written.
  enum Format: String, ExpressibleByArgument, CaseIterable {
    case text
    case markdown
    case json
  }

  private struct Line: Codable {
    var row: String
    var unit: Unit
    var figures: [Figures]
  }

  private let peers: [String]
  private let plan: Plan
  private var lines: [Line] = []

  init(peers: [String], plan: Plan) {
    self.peers = peers
    self.plan = plan
  }

  mutating func add(_ row: Row, _ figures: [Figures]) {
    lines.append(Line(row: row.name, unit: row.unit, figures: figures))
  }

  func text(_ format: Format) throws -> String {
    switch format {
    case .json:
      let encoder = JSONEncoder()
      encoder.outputFormatting = [.prettyPrinted, .sortedKeys]
      return String(decoding: try encoder.encode(self), as: UTF8.self)
    case .markdown:
      let cells = self.cells
      let head = "| " + cells[0].joined(separator: " | ") + " |"
      let rule = "|" + cells[0].map { _ in "---|" }.joined()
      let rest = cells.dropFirst().map { "| " + $0.joined(separator: " | ") + " |" }
      return ([head, rule] + rest).joined(separator: "\n")
    case .text:
      let cells = self.cells
      let widths = cells[0].indices.map { column in
        cells.reduce(0) { max($0, $1[column].count) }
      }
      return cells.map { line in
        zip(line, widths).enumerated().map { column, cell in
          let room = String(repeating: " ", count: cell.1 - cell.0.count)
          return column < 2 ? cell.0 + room : room + cell.0
        }.joined(separator: "  ")
      }.joined(separator: "\n")
    }
  }

  /// The head, and a line for each peer of each row.
  private var cells: [[String]] {
    var cells = [
      [
        "row", "peer", "median", "+-", "unit", "chainfs is", "CPU us/op", "p50 us", "p99 us",
        "MiB held",
      ]
    ]
    for line in lines {
      let own = line.figures.first { $0.peer == "chainfs" }
      for figures in line.figures {
        cells.append([
          line.row, figures.peer, Self.number(figures.value.median),
          Self.number(figures.value.deviation), line.unit.rawValue,
          ratio(own, to: figures, line.unit), Self.number(figures.processorTime?.median),
          Self.number(figures.median?.median), Self.number(figures.slow?.median),
          Self.number(figures.memory?.median),
        ])
      }
    }
    return cells
  }

  /// How many times as fast chainfs is.
  private func ratio(_ own: Figures?, to other: Figures, _ unit: Unit) -> String {
    guard let own, own.peer != other.peer else { return "" }
    let (mine, theirs) = (own.value.median, other.value.median)
    let times = unit.growsWithSpeed ? mine / theirs : theirs / mine
    return times.isFinite ? String(format: "%.2f x", times) : ""
  }

  private static func number(_ value: Double?) -> String {
    guard let value else { return "" }
    return String(format: value >= 100 ? "%.0f" : value >= 1 ? "%.1f" : "%.3f", value)
  }
}
