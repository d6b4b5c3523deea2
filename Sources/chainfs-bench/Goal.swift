/// What a row must reach, beside a peer of the same run or a limit.
struct Goal: Sendable {
  /// On which side of the number it lies.
  enum Bound: Sendable {
    case atLeast(Double)
    case atMost(Double)
  }

  /// What is compared with what.
  private enum Measure: Sendable {
    /// chainfs against the best storage daemon.
    case againstStorageDaemon(Figures.Path)
    /// chainfs against the raw file.
    case againstRaw
    /// chainfs alone.
    case alone
  }

  /// What became of a goal in a run.
  struct Outcome: Encodable {
    var row: String
    var bound: String
    var figure: String
    var verdict: String
  }

  private var row: String
  private var note = ""
  private var bound: Bound
  private var measure: Measure
  /// What a figure that is compared with nothing is counted in.
  private var unit = Unit.times

  /// What the results say; nil if the row was not run.
  func outcome(of results: Results) -> Outcome? {
    guard results.lines.contains(where: { $0.row == row }) else { return nil }
    let figure = figure(in: results)
    let (word, limit, isReached) =
      switch bound {
      case .atLeast(let limit): ("at least", limit, figure.map { $0 >= limit })
      case .atMost(let limit): ("at most", limit, figure.map { $0 <= limit })
      }
    return Outcome(
      row: row + note, bound: "\(word) \(text(limit))\(other)",
      figure: figure.map(text) ?? "",
      verdict: isReached.map { $0 ? "reached" : "short" } ?? "no figure")
  }

  private func text(_ value: Double) -> String {
    unit == .times ? Grid.times(value) : "\(Grid.number(value)) \(unit.rawValue)"
  }

  /// What the figure is a multiple of, after a blank.
  private var other: String {
    switch measure {
    case .againstStorageDaemon: " QSD's"
    case .againstRaw: " raw's"
    case .alone: ""
    }
  }

  private func figure(in results: Results) -> Double? {
    switch measure {
    case .againstStorageDaemon(let figure):
      let own = results.median(row, ChainfsPeer.kind, figure)
      let others = results.storageDaemons(row, figure)
      // The best of them: a goal of at least something is on a speed.
      let best =
        switch bound {
        case .atLeast: others.max()
        case .atMost: others.min()
        }
      return ratio(own, best)
    case .againstRaw:
      return ratio(
        results.median(row, ChainfsPeer.kind, \.main), results.median(row, RawPeer.kind, \.main))
    case .alone: return results.median(row, ChainfsPeer.kind, \.main)
    }
  }

  private func ratio(_ one: Double?, _ other: Double?) -> Double? {
    guard let one, let other, other > 0 else { return nil }
    return one / other
  }
}

extension Goal {
  /// All goals, in the order of the table.
  static let all: [Goal] =
    [
      Goal(
        row: "random read 4 KiB QD1", note: ", CPU per operation", bound: .atMost(0.35),
        measure: .againstStorageDaemon(\.processorTime)),
      speed("random read 4 KiB QD1", 2),
      speed("random read 4 KiB 4x16", 2),
      speed("random write 4 KiB in place QD1", 2),
      speed("random write 4 KiB in place 4x16", 2),
      speed("COW write 4 KiB QD1", 2.5),
      speed("COW write 4 KiB 4x16", 2.5),
      raw("write 4 KiB and fsync in place", .atLeast(0.8)),
      raw("write 4 KiB and fsync COW", .atLeast(0.6)),
      speed("sequential read 1 MiB direct", 2.5),
      speed("sequential read 1 MiB buffered", 2),
      speed("sequential write 1 MiB allocated", 1.2),
      raw("sequential write 1 MiB empty overlay", .atLeast(0.9)),
      raw("re-read of a cached range", .atLeast(0.7)),
    ] + depths + [
      speed("stream, idle", 3),
      speed("stream, idle, on XFS with reflink", 50),
      Goal(
        row: "guest p99 during a stream, against before", bound: .atMost(2), measure: .alone),
      speed("stream while a guest reads", 1),
      raw("loop device: mkfs, copy, sync", .atMost(1.15)),
      raw("loop device, direct: mkfs, copy, sync", .atMost(1.15)),
      Goal(
        row: "status round trip", note: ", p50", bound: .atMost(50), measure: .alone,
        unit: .microseconds),
    ]

  private static let depths: [Goal] =
    [(256, 1.15), (1000, 1.3)].flatMap { depth, limit in
      zip(Depth.comparison(of: depth), [limit, limit, 1.5]).map { part, limit in
        Goal(row: part.name, bound: .atMost(limit), measure: .alone)
      }
    } + [
      Goal(row: "open at depth 256", bound: .atMost(100), measure: .alone, unit: .milliseconds)
    ]

  /// As many times as fast as QEMU.
  private static func speed(_ row: String, _ times: Double) -> Goal {
    Goal(row: row, bound: .atLeast(times), measure: .againstStorageDaemon(\.main))
  }

  /// A part of what the raw file does, or a multiple of its time.
  private static func raw(_ row: String, _ bound: Bound) -> Goal {
    Goal(row: row, bound: bound, measure: .againstRaw)
  }
}
