import ArgumentParser
import Foundation

/// The results, as people or programs read them: the lines, then the goals.
struct Report: Encodable {
  /// How it is written.
  enum Format: String, ExpressibleByArgument, CaseIterable {
    case text
    case markdown
    case json
  }

  private let results: Results
  private let goals: [Goal.Outcome]

  init(_ results: Results) {
    self.results = results
    goals = Goal.all.compactMap { $0.outcome(of: results) }
  }

  func text(_ format: Format) throws -> String {
    switch format {
    case .json:
      let encoder = JSONEncoder()
      encoder.outputFormatting = [.prettyPrinted, .sortedKeys]
      return String(decoding: try encoder.encode(self), as: UTF8.self)
    case .markdown: return parts(\.markdown)
    case .text: return parts(\.text)
    }
  }

  /// All parts, tables as `form` has them.
  private func parts(_ form: (Grid) -> String) -> String {
    ([form(lines)] + failures + (goals.isEmpty ? [] : [form(reached)])).joined(separator: "\n\n")
  }

  /// A line for each peer of each row.
  private var lines: Grid {
    var grid = Grid(head: [
      "row", "peer", "median", "+-", "unit", "chainfs is", "p50 us", "p99 us", "CPU us/op",
      "chainfs takes", "MiB held",
    ])
    for line in results.lines {
      let own = line.figures.first { $0.peer == ChainfsPeer.kind }
      for figures in line.figures {
        let isOther = figures.peer != ChainfsPeer.kind
        let (mine, theirs) = (own?.value.median, figures.value.median)
        let speed =
          line.unit.growsWithSpeed ? Grid.ratio(mine, theirs) : Grid.ratio(theirs, mine)
        let time = Grid.ratio(own?.processorTime?.median, figures.processorTime?.median)
        grid.rows.append([
          line.row, figures.peer, Grid.number(figures.value.median),
          Grid.number(figures.value.deviation), line.unit.rawValue, isOther ? speed : "",
          Grid.number(figures.median?.median), Grid.number(figures.slow?.median),
          Grid.number(figures.processorTime?.median), isOther ? time : "",
          Grid.number(figures.memory?.median),
        ])
      }
      for failure in line.failures {
        grid.rows.append([line.row, failure.peer, "fails"] + [String](repeating: "", count: 8))
      }
    }
    return grid
  }

  /// Why peers have no figure: a paragraph, if any has none.
  private var failures: [String] {
    let lines = results.lines.flatMap { line in
      line.failures.map { "\($0.peer) fails at \(line.row): \($0.reason)" }
    }
    return lines.isEmpty ? [] : [lines.joined(separator: "\n")]
  }

  /// What the run was to show, and what it did show.
  private var reached: Grid {
    var grid = Grid(head: ["row", "must reach", "reached", ""])
    grid.rows = goals.map { [$0.row, $0.bound, $0.figure, $0.verdict] }
    return grid
  }
}
