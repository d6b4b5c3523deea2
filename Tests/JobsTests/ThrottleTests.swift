import HostSystem
import Testing

@testable import Jobs

private func moment(_ milliseconds: UInt64) -> MonotonicTime {
  MonotonicTime(nanoseconds: 1_000_000_000 + milliseconds * 1_000_000)
}

@Suite("Throttle")
struct ThrottleTests {
  /// When pieces go if whoever waits wakes `late` nanoseconds too late, for some seconds.
  private func pieces(
    limit: UInt64, clusterSize: UInt64, lateNanoseconds: Int64
  ) -> [(time: UInt64, bytes: UInt64)] {
    var now = moment(0)
    var throttle = Throttle(limit: limit, now: now)
    let end = moment(12_000)
    var result: [(UInt64, UInt64)] = []
    while now < end {
      if let next = throttle.delay(now: now) {
        now = next.advanced(byNanoseconds: lateNanoseconds)
        continue
      }
      let bytes = throttle.pieceBytes(upTo: 2 << 20, clusterSize: clusterSize)
      throttle.take(bytes, now: now)
      result.append((now.nanoseconds(since: moment(0)), bytes))
    }
    return result
  }

  @Test(
    "over any two seconds the limit holds within five per cent",
    arguments: [
      (4 << 20, 65536, 0), (4 << 20, 65536, 5_000_000), (10 << 20, 65536, 1_000_000),
      (200 << 20, 65536, 100_000), (1 << 30, 2 << 20, 50_000), (100_000, 512, 3_000_000),
    ] as [(UInt64, UInt64, Int64)])
  func holds(limit: UInt64, clusterSize: UInt64, late: Int64) {
    let pieces = pieces(limit: limit, clusterSize: clusterSize, lateNanoseconds: late)
    var worst = (low: Double.infinity, high: 0.0)
    for start in stride(from: UInt64(0), through: 10_000, by: 50) {
      let window = (start * 1_000_000)..<((start + 2000) * 1_000_000)
      let bytes = pieces.filter { window.contains($0.time) }.reduce(0) { $0 + $1.bytes }
      let share = Double(bytes) / Double(limit * 2)
      worst = (min(worst.low, share), max(worst.high, share))
    }
    #expect(worst.low >= 0.95 && worst.high <= 1.05, "\(worst)")
  }

  @Test("no limit never delays")
  func unlimited() {
    var throttle = Throttle(limit: 0, now: moment(0))
    for _ in 0..<1000 { throttle.take(1 << 30, now: moment(0)) }
    #expect(throttle.delay(now: moment(0)) == nil)
  }

  @Test(
    "a new limit takes hold within 100 ms, whatever was owed under the old one",
    arguments: [0, 1, 1 << 20, UInt64(Int64.max)] as [UInt64])
  func newLimit(limit: UInt64) {
    var throttle = Throttle(limit: 1, now: moment(0))
    throttle.take(1 << 20, now: moment(0))
    #expect(throttle.delay(now: moment(5000)) != nil)
    throttle.setLimit(limit, now: moment(5000))
    #expect(
      (throttle.delay(now: moment(5100)) == nil) == (limit != 1), "the same limit forgives nothing")
  }

  @Test("bytes that were not copied are given back")
  func giveBack() {
    var throttle = Throttle(limit: 1 << 20, now: moment(0))
    throttle.take(1 << 20, now: moment(0))
    #expect(throttle.delay(now: moment(0)) == moment(1000))
    throttle.settle(taken: 1 << 20, used: 1 << 19)
    #expect(throttle.delay(now: moment(0)) == moment(500))
    throttle.settle(taken: 0, used: 1 << 20)
    #expect(throttle.delay(now: moment(0)) == moment(1500))
  }

  @Test("an idle hour is not made up for")
  func idle() {
    var throttle = Throttle(limit: 1 << 20, now: moment(0))
    throttle.take(1 << 20, now: moment(3_600_000))
    #expect(throttle.delay(now: moment(3_600_000)) == moment(3_600_960))
  }

  @Test(
    "pieces are whole clusters, at least one, and a fiftieth of the limit",
    arguments: [
      (0, 65536, 2 << 20), (1, 65536, 65536), (50 * 65536, 65536, 65536),
      (50 * 65536 - 1, 65536, 65536), (100 * 65536, 65536, 131072),
      (100 * 65536 - 1, 65536, 65536), (UInt64(Int64.max), 65536, 2 << 20),
      (0, 4 << 20, 4 << 20),
    ] as [(UInt64, UInt64, UInt64)])
  func pieceSize(limit: UInt64, clusterSize: UInt64, expected: UInt64) {
    let throttle = Throttle(limit: limit, now: moment(0))
    #expect(throttle.pieceBytes(upTo: 2 << 20, clusterSize: clusterSize) == expected)
  }

  @Test("the largest numbers do not overflow")
  func extremes() {
    var throttle = Throttle(limit: 1, now: moment(0))
    for _ in 0..<8 { throttle.take(.max, now: moment(0)) }
    #expect(throttle.delay(now: moment(0)) != nil)
    throttle.settle(taken: .max, used: 0)
  }
}
