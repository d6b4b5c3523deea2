internal import CHost
internal import Glibc

/// A moment on the clock that never goes back.
package struct MonotonicTime: Comparable, Hashable, Sendable {
  /// Nanoseconds since a moment that no one knows.
  package var nanoseconds: UInt64

  /// The moment `nanoseconds` after the clock's start.
  package init(nanoseconds: UInt64) { self.nanoseconds = nanoseconds }

  /// Orders by time.
  package static func < (left: Self, right: Self) -> Bool { left.nanoseconds < right.nanoseconds }

  /// The moment that much later; saturates at both ends of the clock.
  package func advanced(byNanoseconds distance: Int64) -> Self {
    let size = distance.magnitude
    if distance >= 0 {
      let (sum, isOver) = nanoseconds.addingReportingOverflow(size)
      return Self(nanoseconds: isOver ? .max : sum)
    }
    return Self(nanoseconds: nanoseconds > size ? nanoseconds - size : 0)
  }

  /// The nanoseconds that have gone by since `earlier`; zero if that is not in the past.
  package func nanoseconds(since earlier: Self) -> UInt64 {
    nanoseconds > earlier.nanoseconds ? nanoseconds - earlier.nanoseconds : 0
  }

  /// The moment that many milliseconds later.
  package func advanced(byMilliseconds distance: Int64) -> Self {
    advanced(byNanoseconds: distance.multipliedReportingOverflow(by: 1_000_000).partialValue)
  }
}

/// A moment on the calendar, which may be set back.
package struct WallTime: Comparable, Hashable, Sendable {
  /// Whole seconds since 1970, UTC.
  package var seconds: Int64
  /// The rest, below one thousand million.
  package var nanoseconds: UInt32

  /// The moment that long after the start of 1970, UTC.
  package init(seconds: Int64, nanoseconds: UInt32 = 0) {
    self.seconds = seconds
    self.nanoseconds = nanoseconds
  }

  /// The seconds by which clocks here are ahead of UTC at this moment.
  package var secondsAheadOfUTC: Int64 {
    var time = time_t(seconds)
    var fields = unsafe tm()
    // In bounds and alive: the call reads one local and fills the other. It leaves that alone only where
    // a year does not fit, and then there is no zone.
    _ = unsafe localtime_r(&time, &fields)
    return unsafe Int64(fields.tm_gmtoff)
  }

  /// Orders by time.
  package static func < (left: Self, right: Self) -> Bool {
    (left.seconds, left.nanoseconds) < (right.seconds, right.nanoseconds)
  }
}

/// Where time comes from: a parameter, so that tests can hold the clock.
package protocol TimeSource: Sendable {
  /// The present moment on the clock that never goes back.
  func now() -> MonotonicTime
  /// The present moment on the calendar.
  func wallTime() -> WallTime
}

/// The host's own clocks.
package struct SystemTimeSource: TimeSource {
  /// The host's clocks need nothing.
  package init() {}

  /// CLOCK_MONOTONIC, the clock that Monitor's deadlines are on.
  package func now() -> MonotonicTime {
    let time = Self.read(CLOCK_MONOTONIC)
    return MonotonicTime(
      nanoseconds: UInt64(time.tv_sec) * 1_000_000_000 + UInt64(time.tv_nsec))
  }

  /// CLOCK_REALTIME.
  package func wallTime() -> WallTime {
    let time = Self.read(CLOCK_REALTIME)
    return WallTime(seconds: Int64(time.tv_sec), nanoseconds: UInt32(time.tv_nsec))
  }

  private static func read(_ clock: clockid_t) -> timespec {
    var time = timespec()
    // In bounds and alive: the call fills one timespec, this local.
    let status = unsafe clock_gettime(clock, &time)
    precondition(status == 0, "the host has no such clock")
    return time
  }
}
