import HostSystem
import Testing

@Suite struct RepeatLimitTests {
  static func moment(_ seconds: UInt64) -> MonotonicTime {
    MonotonicTime(nanoseconds: (1000 + seconds) * 1_000_000_000)
  }

  @Test("the same sentence is told once a minute, with the number of those in between")
  func repeats() {
    var limit = RepeatLimit(now: Self.moment(0))
    #expect(limit.line(for: "a", now: Self.moment(0)) == "a")
    for second in 1...59 as ClosedRange<UInt64> {
      #expect(limit.line(for: "a", now: Self.moment(second)) == nil)
    }
    #expect(
      limit.line(for: "a", now: Self.moment(60)) == "a (59 more failures were not logged)")
    #expect(limit.line(for: "b", now: Self.moment(60)) == "b")
  }

  @Test("a million different failures within a minute are 13 lines, and all are counted")
  func crowd() {
    var limit = RepeatLimit(now: Self.moment(0))
    var lines = 0
    for number in 0..<1_000_000 as Range<UInt64> {
      let now = MonotonicTime(nanoseconds: Self.moment(0).nanoseconds + number * 59_000)
      if limit.line(for: "failure \(number)", now: now) != nil { lines += 1 }
    }
    #expect(lines == 8 + 5)
    // Each of the lines told what was left out before it; this one tells the rest.
    let line = limit.line(for: "last", now: Self.moment(200))
    #expect(line?.hasPrefix("last (") == true && line?.hasSuffix("not logged)") == true)
  }
}
