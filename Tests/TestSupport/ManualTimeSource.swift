package import HostSystem

/// A clock that stands still until a test moves it.
package final class ManualTimeSource: TimeSource {
  private let elapsed: Monitor<UInt64>
  private let start: WallTime

  /// A clock that starts at the given moments.
  package init(
    nanoseconds: UInt64 = 1_000_000_000, wall: WallTime = WallTime(seconds: 1_700_000_000)
  ) {
    elapsed = Monitor(nanoseconds)
    start = wall
  }

  /// Moves both clocks on.
  package func advance(nanoseconds: UInt64) { elapsed.withLock { $0 += nanoseconds } }
  /// Moves both clocks on.
  package func advance(seconds: Double) { advance(nanoseconds: UInt64(seconds * 1e9)) }

  /// The moment it stands at.
  package func now() -> MonotonicTime { MonotonicTime(nanoseconds: elapsed.withLock { $0 }) }
  /// The moment it stands at, on the calendar.
  package func wallTime() -> WallTime {
    let nanoseconds = elapsed.withLock { $0 }
    return WallTime(
      seconds: start.seconds + Int64(nanoseconds / 1_000_000_000),
      nanoseconds: UInt32(nanoseconds % 1_000_000_000))
  }
}
