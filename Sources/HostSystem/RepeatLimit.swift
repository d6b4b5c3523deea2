// Failures come in crowds: a program that reads a broken disk again and again fails again and again, at
// another offset each time. The first ones are worth a line each, the rest a number.
//
//     a sentence like the last one      counts, for a minute
//     a new one, and there is room      is told, with how many were not told before it
//     a new one, and there is none      counts
//
// There is room for eight at once, and for one more every ten seconds.

/// Decides which of many failures are worth a line of a log.
package struct RepeatLimit: Sendable {
  private static let burst: UInt64 = 8
  private static let refillNanoseconds: UInt64 = 10_000_000_000
  private static let repeatNanoseconds: UInt64 = 60_000_000_000

  private var room = RepeatLimit.burst
  private var refilled: MonotonicTime
  private var last: (sentence: String, moment: MonotonicTime)?
  private var untold: UInt64 = 0

  /// A limit that was not used yet.
  package init(now: MonotonicTime) {
    refilled = now
  }

  /// The line for a failure, nil if it only counts.
  package mutating func line(for sentence: String, now: MonotonicTime) -> String? {
    let gained = now.nanoseconds(since: refilled) / Self.refillNanoseconds
    if gained > 0 {
      room = min(Self.burst, room + min(gained, Self.burst))
      refilled = now
    }
    let isRepeated =
      last.map {
        $0.sentence == sentence && now.nanoseconds(since: $0.moment) < Self.repeatNanoseconds
      } ?? false
    if isRepeated || room == 0 {
      untold += 1
      return nil
    }
    room -= 1
    last = (sentence, now)
    defer { untold = 0 }
    return untold == 0 ? sentence : "\(sentence) (\(untold) more failures were not logged)"
  }
}
