import Chain
import HostSystem
import TestSupport
import Testing

@testable import Jobs

private func moment(_ milliseconds: UInt64) -> MonotonicTime {
  MonotonicTime(nanoseconds: 1_000_000_000 + milliseconds * 1_000_000)
}

/// Streams that share a limit, moved on by hand.
private struct Race {
  /// What a stream is like.
  struct Runner {
    /// Its own limit, 0 for none.
    var own: UInt64 = 0
    var clusterSize: UInt64 = 65536
    var threads = 2
    /// How long a piece takes.
    var copyNanoseconds: Int64 = 1_000_000
    /// How much too late it wakes, at most.
    var lateNanoseconds: Int64 = 0
    /// When it takes part, in milliseconds.
    var from: UInt64 = 0
    var to: UInt64 = 12_000
  }

  private struct Thread {
    var runner: Int
    var wakes: MonotonicTime
  }

  private var share = SharedThrottle(limit: 0, now: moment(0))
  private let runners: [Runner]
  private let numbers: [StreamNumber]
  private var own: [Throttle]
  private var random = SeededGenerator(seed: 5)
  /// What went: when, in nanoseconds, whose, and how much.
  private(set) var pieces: [(time: UInt64, runner: Int, bytes: UInt64)] = []

  init(limit: UInt64, _ runners: [Runner]) {
    self.runners = runners
    var share = SharedThrottle(limit: limit, now: moment(0))
    numbers = runners.map { _ in share.newNumber() }
    self.share = share
    own = runners.map { Throttle(limit: $0.own, now: moment(0)) }
    var threads: [Thread] = []
    for (index, runner) in runners.enumerated() {
      for _ in 0..<runner.threads {
        threads.append(Thread(runner: index, wakes: moment(runner.from)))
      }
    }
    while let next = threads.indices.min(by: { threads[$0].wakes < threads[$1].wakes }),
      threads[next].wakes < moment(12_000)
    {
      threads[next].wakes = step(threads[next].runner, threads[next].wakes)
    }
  }

  /// Lets a thread act, and gives when it does so again.
  private mutating func step(_ index: Int, _ now: MonotonicTime) -> MonotonicTime {
    let runner = runners[index]
    func late(_ moment: MonotonicTime, _ random: inout SeededGenerator) -> MonotonicTime {
      moment.advanced(byNanoseconds: Int64.random(in: 0...runner.lateNanoseconds, using: &random))
    }
    if now >= moment(runner.to) {
      share.leave(numbers[index])
      return moment(20_000)
    }
    if let next = own[index].delay(now: now) {
      share.rest(numbers[index])
      return late(next, &random)
    }
    if let next = share.delay(of: numbers[index], now: now) { return late(next, &random) }
    let bytes = share.pieceBytes(
      upTo: own[index].pieceBytes(upTo: 8 << 20, clusterSize: runner.clusterSize),
      clusterSize: runner.clusterSize)
    own[index].take(bytes, now: now)
    share.take(bytes, by: numbers[index], now: now)
    pieces.append((now.nanoseconds(since: moment(0)), index, bytes))
    return late(now.advanced(byNanoseconds: runner.copyNanoseconds), &random)
  }

  /// The bytes a second that some runners had, over windows of two seconds.
  func rates(of wanted: Set<Int>, from: UInt64, to: UInt64) -> (low: Double, high: Double) {
    var worst = (low: Double.infinity, high: 0.0)
    for start in stride(from: from, through: to - 2000, by: 50) {
      let window = (start * 1_000_000)..<((start + 2000) * 1_000_000)
      var bytes: UInt64 = 0
      for piece in pieces where wanted.contains(piece.runner) && window.contains(piece.time) {
        bytes += piece.bytes
      }
      worst = (min(worst.low, Double(bytes) / 2), max(worst.high, Double(bytes) / 2))
    }
    return worst
  }

  /// Fails unless each runner has its part of so many bytes a second within five per cent, and all
  /// together no more than that.
  func expect(_ parts: [Double], from: UInt64 = 500, to: UInt64 = 12_000, _ says: String = "") {
    for (index, part) in parts.enumerated() {
      let (low, high) = rates(of: [index], from: from, to: to)
      #expect(
        low >= 0.95 * part && high <= 1.05 * part, "\(says) \(index): \(low)...\(high), \(part)")
    }
    let sum = parts.reduce(0, +)
    let (low, high) = rates(of: Set(parts.indices), from: from, to: to)
    #expect(low >= 0.95 * sum && high <= 1.05 * sum, "\(says) all: \(low)...\(high), not \(sum)")
  }
}

@Suite("SharedThrottle")
struct SharedThrottleTests {
  fileprivate typealias Runner = Race.Runner

  @Test(
    "streams get equal parts, whatever their clusters, threads and delays",
    arguments: [4 << 20, 10 << 20, 200 << 20, 1 << 30] as [UInt64], [1, 2, 3, 5])
  func equal(limit: UInt64, count: Int) {
    var runners = [Runner](repeating: Runner(), count: count)
    runners[0].threads = 1
    runners[0].copyNanoseconds = 2_000_000
    runners[count - 1].lateNanoseconds = 3_000_000
    if limit >= 200 << 20 { runners[count / 2].clusterSize = 1 << 20 }
    if limit == 1 << 30 {
      // One thread has to be able to move its part.
      for index in runners.indices { runners[index].copyNanoseconds = 500_000 }
    }
    Race(limit: limit, runners).expect(
      [Double](repeating: Double(limit) / Double(count), count: count), "\(limit)")
  }

  @Test("what a slower stream leaves goes to the others in equal parts")
  func leftOver() {
    let mebibyte = Double(1 << 20)
    let race = Race(limit: 10 << 20, [Runner(own: 1 << 20), Runner(), Runner()])
    race.expect([mebibyte, 4.5 * mebibyte, 4.5 * mebibyte])
    // Half its part, since a piece takes longer.
    let slow = Race(
      limit: 12 << 20, [Runner(threads: 1, copyNanoseconds: 31_250_000), Runner()])
    let (low, high) = slow.rates(of: [0, 1], from: 500, to: 12_000)
    #expect(low >= 0.95 * 12 * mebibyte && high <= 1.05 * 12 * mebibyte)
    #expect(slow.rates(of: [1], from: 500, to: 12_000).low > 7.5 * mebibyte)
  }

  @Test("a lower limit of its own holds, and a higher one does not count")
  func own() {
    let mebibyte = Double(1 << 20)
    Race(limit: 8 << 20, [Runner(own: 3 << 20), Runner(own: 100 << 20)])
      .expect([3 * mebibyte, 5 * mebibyte])
    Race(limit: 8 << 20, [Runner(own: 1 << 20), Runner(own: 2 << 20)])
      .expect([mebibyte, 2 * mebibyte])
  }

  @Test("a stream that comes or goes changes the parts at once, and nobody saves up")
  func comingAndGoing() {
    let mebibyte = Double(1 << 20)
    let race = Race(limit: 8 << 20, [Runner(), Runner(from: 4000, to: 8000)])
    race.expect([8 * mebibyte, 0], from: 500, to: 4000, "before")
    race.expect([4 * mebibyte, 4 * mebibyte], from: 4050, to: 8000, "meanwhile")
    race.expect([8 * mebibyte, 0], from: 8050, to: 12_000, "after")
  }

  @Test("a turn is kept for a while, and not for ever")
  func patience() {
    var share = SharedThrottle(limit: 10 << 20, now: moment(0))
    let (one, other) = (share.newNumber(), share.newNumber())
    #expect(share.delay(of: one, now: moment(0)) == nil)
    share.take(1 << 20, by: one, now: moment(0))
    #expect(share.delay(of: other, now: moment(0)) == moment(100))
    // The first one has had its part: at the moment it is the other's turn, then nobody's.
    #expect(share.delay(of: one, now: moment(100)) == moment(102))
    #expect(share.delay(of: one, now: moment(119)) == moment(121))
    #expect(share.delay(of: one, now: moment(120)) == nil)
    share.rest(one)
    #expect(share.delay(of: other, now: moment(120)) == nil)
  }

  @Test("whoever rests or leaves is not waited for", arguments: [false, true])
  func resting(leaves: Bool) {
    var share = SharedThrottle(limit: 10 << 20, now: moment(0))
    let (one, other) = (share.newNumber(), share.newNumber())
    #expect(share.delay(of: one, now: moment(0)) == nil)
    share.take(1 << 20, by: one, now: moment(0))
    #expect(share.delay(of: other, now: moment(0)) == moment(100))
    if leaves { share.leave(other) } else { share.rest(other) }
    #expect(share.delay(of: one, now: moment(100)) == nil)
  }

  @Test(
    "a new limit takes hold at once, whatever was owed under the old one",
    arguments: [0, 1, 1 << 20, UInt64(Int64.max)] as [UInt64])
  func newLimit(limit: UInt64) {
    var share = SharedThrottle(limit: 1, now: moment(0))
    let one = share.newNumber()
    share.take(1 << 20, by: one, now: moment(0))
    #expect(share.delay(of: one, now: moment(5000)) != nil)
    share.setLimit(limit, now: moment(5000))
    #expect(share.limit == limit)
    #expect((share.delay(of: one, now: moment(5100)) == nil) == (limit != 1))
  }

  @Test("bytes that were not copied are given back to the stream and to all")
  func giveBack() {
    var share = SharedThrottle(limit: 1 << 20, now: moment(0))
    let (one, other) = (share.newNumber(), share.newNumber())
    share.take(1 << 20, by: one, now: moment(0))
    #expect(share.delay(of: other, now: moment(0)) == moment(1000))
    share.settle(taken: 1 << 20, used: 0, by: one)
    #expect(share.delay(of: one, now: moment(0)) == nil)
  }

  @Test("the largest numbers do not overflow")
  func extremes() {
    var share = SharedThrottle(limit: 1, now: moment(0))
    let one = share.newNumber()
    for _ in 0..<4 { share.take(.max, by: one, now: moment(0)) }
    share.settle(taken: 0, used: .max, by: one)
    share.settle(taken: .max, used: 0, by: one)
    #expect(share.delay(of: one, now: moment(0)) != nil)
    share.setLimit(UInt64(Int64.max), now: moment(0))
    #expect(share.delay(of: one, now: moment(0)) == nil)
    #expect(share.pieceBytes(upTo: 8 << 20, clusterSize: 65536) == 8 << 20)
  }
}

@Suite("CopySchedule under a shared limit")
struct SharedScheduleTests {
  private let idle = GuestActivity(inFlight: 0, completed: 0, latencyNanoseconds: 0)

  private func schedule(_ number: StreamNumber, speed: UInt64 = 0) -> CopySchedule {
    var schedule = CopySchedule(
      length: 64 << 20, clusterSize: 65536, threads: 2, speed: speed, policy: .report,
      isPaused: false, number: number, now: moment(0))
    var share = SharedThrottle(limit: 0, now: moment(0))
    _ = schedule.next(guest: idle, share: &share, now: moment(0))
    let range = GuestRange(offset: .zero, length: 64 << 20)
    schedule.planned(
      [StreamExtent(range: range, kind: .copy)], diskSize: 64 << 20, now: moment(0))
    return schedule
  }

  @Test("a job takes what the shared limit allows, and waits for it no longer when held")
  func waits() throws {
    var share = SharedThrottle(limit: 10 << 20, now: moment(0))
    var one = schedule(share.newNumber())
    var other = schedule(share.newNumber())
    guard case .copy(let piece) = one.next(guest: idle, share: &share, now: moment(0)) else {
      Issue.record("no piece")
      return
    }
    // A fiftieth of the limit, in whole clusters, and it is this one's to pay.
    #expect(piece.range.length == 196_608)
    #expect(
      other.next(guest: idle, share: &share, now: moment(0))
        == .wait(until: moment(18).advanced(byNanoseconds: 750_000)))
    var result = PopulateResult()
    result.copied = 65536
    one.copied(piece, result, share: &share, now: moment(1))
    #expect(
      other.next(guest: idle, share: &share, now: moment(6))
        == .wait(until: moment(6).advanced(byNanoseconds: 250_000)))
    other.pause()
    #expect(other.next(guest: idle, share: &share, now: moment(7)) == .wait(until: nil))
    guard case .copy = one.next(guest: idle, share: &share, now: moment(7)) else {
      Issue.record("a held job is waited for")
      return
    }
  }

  @Test("a change of the shared limit wakes who waits")
  func wakes() {
    var one = schedule(StreamNumber(rawValue: 1))
    let before = one.generation
    one.sharedLimitChanged()
    #expect(one.generation > before)
  }
}
