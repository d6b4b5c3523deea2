internal import HostSystem

// The speed limit, as a bucket that is kept as a moment.
//
// `nextStart` is when the bytes taken so far are paid for. Whoever comes later than that may go and
// moves it on by what his bytes cost; whoever comes earlier waits for it. A thread that wakes late
// may make up for at most `burst`, so over any two seconds no more than
//
//     limit * (2 s + burst) + one piece
//
// go: 2 % for the burst and 1 % for a piece, which is a fiftieth of the limit.
//
// Bytes are taken before it is known how many will have to be copied. What a guest had written
// meanwhile, or what was zero, is given back.

/// A limit in bytes a second.
struct Throttle: Sendable {
  /// How much lost time may be made up for.
  static let burstNanoseconds: Int64 = 40_000_000

  /// Bytes a second, 0 for no limit.
  private(set) var limit: UInt64
  private var nextStart: MonotonicTime

  init(limit: UInt64, now: MonotonicTime) {
    self.limit = limit
    nextStart = now
  }

  /// When the next bytes may go; nil if at once.
  func delay(now: MonotonicTime) -> MonotonicTime? {
    limit == 0 || nextStart <= now ? nil : nextStart
  }

  /// Counts bytes that go now.
  mutating func take(_ bytes: UInt64, now: MonotonicTime) {
    guard limit > 0 else { return }
    nextStart = max(nextStart, now.advanced(byNanoseconds: -Self.burstNanoseconds))
      .advanced(byNanoseconds: cost(bytes))
  }

  /// Corrects a count: `taken` bytes were counted, `used` went.
  mutating func settle(taken: UInt64, used: UInt64) {
    guard limit > 0 else { return }
    nextStart = nextStart.advanced(
      byNanoseconds: used > taken ? cost(used - taken) : -cost(taken - used))
  }

  /// Puts another limit in force at once; what is owed under the old one is forgotten, or a tiny
  /// limit would go on for hours.
  mutating func setLimit(_ limit: UInt64, now: MonotonicTime) {
    if limit == self.limit { return }
    self.limit = limit
    nextStart = now
  }

  /// The largest piece that keeps the promise of the limit, in whole clusters and at least one.
  func pieceBytes(upTo most: UInt64, clusterSize: UInt64) -> UInt64 {
    let wanted = limit == 0 ? most : min(most, limit / 50)
    return max(wanted / clusterSize * clusterSize, clusterSize)
  }

  private func cost(_ bytes: UInt64) -> Int64 {
    let (high, low) = bytes.multipliedFullWidth(by: 1_000_000_000)
    // The quotient fits only if the high half is below the divisor; 2^62 ns are 146 years.
    if high >= limit { return 1 << 62 }
    return Int64(min(limit.dividingFullWidth((high, low)).quotient, 1 << 62))
  }
}
