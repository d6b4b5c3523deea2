internal import HostSystem

/// How fast a job was over the last few seconds.
///
/// Two figures: bytes copied, which people want to see, and bytes looked at, which say when it ends.
struct RateMeter: Sendable {
  private struct Sample: Sendable {
    var time: MonotonicTime
    var copied: UInt64
    var scanned: UInt64
  }

  private static let spacing: UInt64 = 500_000_000
  private static let most = 10
  private var samples: [Sample] = []

  /// Notes where the job is; more often than every half second changes nothing.
  mutating func note(copied: UInt64, scanned: UInt64, now: MonotonicTime) {
    if let last = samples.last, now.nanoseconds(since: last.time) < Self.spacing { return }
    if samples.count == Self.most { samples.removeFirst() }
    samples.append(Sample(time: now, copied: copied, scanned: scanned))
  }

  /// Begins anew: what lies before a pause says nothing about the pace after it.
  mutating func reset() { samples = [] }

  /// Bytes copied a second, and the seconds that `left` more bytes to look at will take; nil while
  /// it cannot be told.
  func pace(
    copied: UInt64, scanned: UInt64, left: UInt64, now: MonotonicTime
  ) -> (rate: UInt64?, eta: UInt64?) {
    guard let first = samples.first else { return (nil, nil) }
    let elapsed = now.nanoseconds(since: first.time)
    guard elapsed >= Self.spacing / 2, copied >= first.copied, scanned >= first.scanned else {
      return (nil, nil)
    }
    let seconds = Double(elapsed) / 1e9
    let rate = UInt64(Double(copied - first.copied) / seconds)
    let pace = Double(scanned - first.scanned) / seconds
    let eta = pace > 0 ? Double(left) / pace : .infinity
    return (rate, eta < 1e9 ? UInt64(eta.rounded(.up)) : nil)
  }
}
