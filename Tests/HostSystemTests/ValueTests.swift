import HostSystem
import TestSupport
import Testing

@Suite struct GuestRangeTests {
  static func range(_ start: UInt64, _ end: UInt64) -> GuestRange {
    GuestRange(from: GuestOffset(start), to: GuestOffset(end))
  }

  @Test(
    "a range is cut to its bounds, and what misses them is empty",
    arguments: [
      (10, 20, 0, 100, 10, 20), (10, 20, 15, 100, 15, 20), (10, 20, 0, 15, 10, 15),
      (10, 20, 12, 14, 12, 14), (10, 20, 20, 30, 20, 20), (10, 20, 0, 10, 10, 10),
      (10, 20, 0, 5, 5, 5), (10, 20, 50, 60, 50, 50), (10, 10, 0, 100, 10, 10),
    ] as [(UInt64, UInt64, UInt64, UInt64, UInt64, UInt64)])
  func clamps(
    start: UInt64, end: UInt64, low: UInt64, high: UInt64, from: UInt64, to: UInt64
  ) {
    #expect(Self.range(start, end).clamped(to: Self.range(low, high)) == Self.range(from, to))
  }

  @Test(
    "a range is widened and narrowed to whole units",
    arguments: [
      (0, 8, 0, 8, 0, 8), (1, 8, 0, 8, nil, nil), (1, 7, 0, 8, nil, nil), (1, 17, 0, 24, 8, 16),
      (8, 17, 8, 24, 8, 16), (7, 9, 0, 16, nil, nil),
    ] as [(UInt64, UInt64, UInt64, UInt64, UInt64?, UInt64?)])
  func units(
    start: UInt64, end: UInt64, from: UInt64, to: UInt64, inner: UInt64?, innerEnd: UInt64?
  ) {
    #expect(Self.range(start, end).widened(to: 8) == Self.range(from, to))
    let narrowed = Self.range(start, end).narrowed(to: 8)
    if let inner, let innerEnd {
      #expect(narrowed == Self.range(inner, innerEnd))
    } else {
      #expect(narrowed.isEmpty)
    }
  }

  @Test("ranges that only touch do not overlap")
  func overlaps() {
    #expect(!Self.range(0, 8).overlaps(Self.range(8, 16)))
    #expect(Self.range(0, 9).overlaps(Self.range(8, 16)))
    #expect(!Self.range(4, 4).overlaps(Self.range(0, 8)))
  }

  @Test("a moment on the clock neither wraps nor goes below zero")
  func time() {
    let late = MonotonicTime(nanoseconds: .max)
    #expect(late.advanced(byNanoseconds: 1) == late)
    #expect(MonotonicTime(nanoseconds: 5).advanced(byNanoseconds: -9).nanoseconds == 0)
    #expect(MonotonicTime(nanoseconds: 5).nanoseconds(since: late) == 0)
  }
}

@Suite struct SpanTests {
  // An expectation takes no span apart itself.
  private func isAllZero(_ bytes: [UInt8]) -> Bool { bytes.rawSpan.isAllZero }

  @Test("a slice writes to the bytes it was cut from")
  func slice() {
    var bytes = [UInt8](repeating: 1, count: 8)
    var span = bytes.mutableRawSpan
    var part = span.slice(2..<5)
    part.fillWithZeroes()
    span.copy([7, 8].rawSpan, at: 6)
    #expect(bytes == [1, 1, 0, 0, 0, 1, 7, 8])
  }

  @Test("one byte anywhere makes a span not all zero", arguments: [1, 2, 7, 8, 9, 511, 512, 4096])
  func zeroes(count: Int) {
    var bytes = [UInt8](repeating: 0, count: count)
    #expect(isAllZero(bytes))
    for place in Set([0, count / 2, count - 1]) {
      bytes[place] = 1
      #expect(!isAllZero(bytes))
      bytes[place] = 0
    }
    #expect(isAllZero([]))
  }
}
