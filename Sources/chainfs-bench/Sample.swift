/// What one turn of one peer gave.
struct Sample: Sendable {
  /// The row's figure, in the row's unit.
  var value: Double
  /// Microseconds of the peer's processors for each operation.
  var processorTime: Double?
  /// Microseconds that half of the operations took at most.
  var median: Double?
  /// Microseconds that 99 of 100 operations took at most.
  var slow: Double?
  /// MiB that the peer held at the end.
  var memory: Double?
}

/// The middle of some figures, and how far they lie apart.
struct Spread: Codable, Sendable {
  /// The median.
  var median: Double
  /// Half the distance between the quartiles.
  var deviation: Double

  /// Nil for no figures.
  init?(_ values: [Double]) {
    if values.isEmpty { return nil }
    let sorted = values.sorted()
    median = Self.quantile(0.5, of: sorted)
    deviation = (Self.quantile(0.75, of: sorted) - Self.quantile(0.25, of: sorted)) / 2
  }

  private static func quantile(_ part: Double, of sorted: [Double]) -> Double {
    let place = part * Double(sorted.count - 1)
    let low = Int(place)
    let high = min(low + 1, sorted.count - 1)
    return sorted[low] + (sorted[high] - sorted[low]) * (place - Double(low))
  }
}

/// All turns of one peer in one row.
struct Figures: Codable, Sendable {
  var peer: String
  var value: Spread
  var processorTime: Spread?
  var median: Spread?
  var slow: Spread?
  var memory: Spread?

  /// Nil without a turn.
  init?(peer: String, _ samples: [Sample]) {
    guard let value = Spread(samples.map(\.value)) else { return nil }
    self.peer = peer
    self.value = value
    processorTime = Spread(samples.compactMap(\.processorTime))
    median = Spread(samples.compactMap(\.median))
    slow = Spread(samples.compactMap(\.slow))
    memory = Spread(samples.compactMap(\.memory))
  }
}

/// What all peers reached in one row, or why they did not.
struct Line: Codable, Sendable {
  struct Failure: Codable, Sendable {
    var peer: String
    var reason: String
  }

  var row: String
  var unit: Unit
  var figures: [Figures]
  var failures: [Failure]
}

/// All lines of a run.
struct Results: Codable {
  var plan: Plan
  var lines: [Line] = []

  /// A median of one peer, nil if there is none.
  func median(_ row: String, _ peer: String, _ figure: Figures.Path) -> Double? {
    lines.first { $0.row == row }?.figures.first { $0.peer == peer }?[keyPath: figure]?.median
  }

  /// The medians of all QEMU storage daemons.
  func storageDaemons(_ row: String, _ figure: Figures.Path) -> [Double] {
    (lines.first { $0.row == row }?.figures ?? [])
      .filter { $0.peer.hasPrefix(StorageDaemonPeer.kind) }
      .compactMap { $0[keyPath: figure]?.median }
  }
}

extension Figures {
  /// One of the figures.
  typealias Path = any KeyPath<Figures, Spread?> & Sendable

  /// The row's figure, as one that may be missing like the others.
  var main: Spread? { value }
}
