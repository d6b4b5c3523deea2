import Chain
import HostSystem
import Testing

@testable import Jobs

private let mebibyte: UInt64 = 1 << 20
private let idle = GuestActivity(inFlight: 0, completed: 0, latencyNanoseconds: 0)

private func moment(_ milliseconds: UInt64) -> MonotonicTime {
  MonotonicTime(nanoseconds: 1_000_000_000 + milliseconds * 1_000_000)
}

private func schedule(
  length: UInt64 = 8 * mebibyte, speed: UInt64 = 0, policy: ErrorPolicy = .report
) -> CopySchedule {
  CopySchedule(
    length: length, clusterSize: 65536, threads: 2, speed: speed, policy: policy, isPaused: false,
    now: moment(0))
}

private func extent(_ kind: StreamKind, _ offset: UInt64, _ length: UInt64) -> StreamExtent {
  StreamExtent(range: GuestRange(offset: GuestOffset(offset), length: length), kind: kind)
}

private func copied(_ bytes: UInt64) -> PopulateResult {
  var result = PopulateResult()
  result.copied = bytes
  return result
}

extension CopySchedule {
  /// A schedule that shares nothing.
  fileprivate init(
    length: UInt64, snapshotLength: UInt64 = 0, clusterSize: Int, threads: Int, speed: UInt64,
    policy: ErrorPolicy, isPaused: Bool, autoFinalize: Bool = true, now: MonotonicTime
  ) {
    self.init(
      length: length, snapshotLength: snapshotLength, clusterSize: clusterSize, threads: threads,
      speed: speed, policy: policy, isPaused: isPaused, autoFinalize: autoFinalize,
      number: StreamNumber(rawValue: 1), now: now)
  }

  fileprivate mutating func next(guest: GuestActivity, now: MonotonicTime) -> Step {
    var share = SharedThrottle(limit: 0, now: now)
    return next(guest: guest, share: &share, now: now)
  }

  fileprivate mutating func copied(
    _ piece: Piece, _ result: PopulateResult, now: MonotonicTime
  ) {
    var share = SharedThrottle(limit: 0, now: now)
    copied(piece, result, share: &share, now: now)
  }

  fileprivate mutating func next(at milliseconds: UInt64) -> Step {
    next(guest: idle, now: moment(milliseconds))
  }

  /// A schedule that was told its plan.
  fileprivate mutating func plan(_ extents: [StreamExtent]) {
    let step = next(at: 0)
    #expect(step == .plan(.disk, .zero))
    planned(extents, diskSize: length, now: moment(0))
  }

  fileprivate mutating func piece(at milliseconds: UInt64) throws -> Piece {
    guard case .copy(let piece) = next(at: milliseconds) else {
      throw JobFailure(kind: .invalid, sentence: "no piece")
    }
    return piece
  }
}

@Suite("CopySchedule")
struct CopyScheduleTests {
  @Test("internal snapshots come after the disk, and once nothing of it is under way")
  func snapshots() throws {
    var job = CopySchedule(
      length: 16 * mebibyte, snapshotLength: 2 * mebibyte, clusterSize: 65536, threads: 2, speed: 0,
      policy: .report, isPaused: false, now: moment(0))
    #expect(job.length == 18 * mebibyte)
    #expect(job.next(at: 0) == .plan(.disk, .zero))
    job.planned([extent(.copy, 0, 16 * mebibyte)], diskSize: 16 * mebibyte, now: moment(0))
    let first = try job.piece(at: 0)
    let second = try job.piece(at: 0)
    #expect(first.part == .disk)
    job.copied(first, copied(first.range.length), now: moment(1))
    #expect(job.next(at: 1) == .wait(until: moment(1000)))
    job.copied(second, copied(second.range.length), now: moment(1))
    #expect(job.next(at: 1) == .plan(.snapshots, .zero))
    job.planned([extent(.copy, 0, 2 * mebibyte)], diskSize: 16 * mebibyte, now: moment(1))
    let third = try job.piece(at: 1)
    #expect(third.part == .snapshots && third.range.length == 2 * mebibyte)
    job.copied(third, copied(2 * mebibyte), now: moment(2))
    #expect(job.next(at: 2) == .finish)
    #expect(job.counters.scanned == job.length)
    let goesOn = job.scanAgain()
    #expect(goesOn)
    #expect(job.next(at: 2) == .plan(.disk, .zero))
  }

  @Test("a disk is planned, copied by two threads, finished and closed")
  func whole() throws {
    var job = schedule(length: 32 * mebibyte)
    job.plan([extent(.copy, 0, 16 * mebibyte), extent(.skip, 16 * mebibyte, 16 * mebibyte)])
    #expect(job.counters.skipped == 16 * mebibyte)
    let first = try job.piece(at: 0)
    let second = try job.piece(at: 0)
    #expect(first.range.end == second.range.offset)
    #expect(job.next(at: 0) == .wait(until: nil))
    job.copied(first, copied(first.range.length), now: moment(1))
    job.copied(second, copied(second.range.length), now: moment(1))
    #expect(job.next(at: 2) == .finish)
    #expect(job.next(at: 2) == .wait(until: nil))
    job.finished()
    #expect(job.next(at: 3) == .close(.completed))
    #expect(job.next(at: 3) == .wait(until: nil))
    job.closed()
    #expect(job.next(at: 3) == .exit)
    #expect(job.counters.scanned == 32 * mebibyte)
    #expect(job.counters.durable == 32 * mebibyte)
  }

  @Test("progress is flushed every second, also while paused, and only what was there counts")
  func flushes() throws {
    var job = schedule()
    job.plan([extent(.copy, 0, 8 * mebibyte)])
    let piece = try job.piece(at: 0)
    job.copied(piece, copied(piece.range.length), now: moment(10))
    job.pause()
    #expect(job.next(at: 500) == .wait(until: moment(1000)))
    #expect(job.next(at: 1000) == .flush)
    #expect(job.next(at: 1000) == .wait(until: nil))
    job.flushed(scanned: piece.range.length)
    #expect(job.counters.durable == piece.range.length)
    #expect(job.next(at: 9000) == .wait(until: nil), "nothing new, nothing to flush")
  }

  @Test("a cancel is seen at once while throttled, paused or stopped")
  func cancel() throws {
    var throttled = schedule(speed: 1)
    throttled.plan([extent(.copy, 0, 8 * mebibyte)])
    let piece = try throttled.piece(at: 0)
    throttled.copied(piece, copied(piece.range.length), now: moment(0))
    guard case .wait = throttled.next(at: 0) else {
      Issue.record("not throttled")
      return
    }
    throttled.cancel()
    #expect(throttled.next(at: 1) == .close(.cancelled))

    var paused = schedule()
    paused.pause()
    paused.cancel()
    #expect(paused.next(at: 0) == .close(.cancelled))
  }

  @Test("the end waits for a piece that is under way")
  func cancelWaits() throws {
    var job = schedule()
    job.plan([extent(.copy, 0, 8 * mebibyte)])
    let piece = try job.piece(at: 0)
    job.cancel()
    #expect(job.next(at: 0) == .wait(until: nil))
    job.copied(piece, copied(piece.range.length), now: moment(1))
    #expect(job.next(at: 1) == .close(.cancelled))
  }

  @Test("a stopped job tries the same place again after resume")
  func retry() throws {
    var job = schedule(policy: .stop)
    job.plan([extent(.copy, 0, 8 * mebibyte)])
    let piece = try job.piece(at: 0)
    job.failed(piece, JobFailure(kind: .io, sentence: "vda: bad"), now: moment(0))
    #expect(job.next(at: 0) == .wait(until: moment(1000)))
    job.resume()
    #expect(try job.piece(at: 0).range == piece.range)
  }

  @Test("a failed plan is asked again after resume")
  func retryPlan() {
    var job = schedule(policy: .stop)
    #expect(job.next(at: 0) == .plan(.disk, .zero))
    job.planFailed(JobFailure(kind: .io, sentence: "vda: bad"), diskSize: job.length)
    #expect(job.next(at: 0) == .wait(until: nil))
    job.resume()
    #expect(job.next(at: 0) == .plan(.disk, .zero))
  }

  @Test("ignored errors count as looked at, so that the offset comes to the length")
  func ignore() throws {
    var job = schedule(length: 2 * mebibyte, policy: .ignore)
    job.plan([extent(.copy, 0, 2 * mebibyte)])
    let piece = try job.piece(at: 0)
    job.failed(piece, JobFailure(kind: .io, sentence: "vda: bad"), now: moment(0))
    #expect(
      job.next(at: 0) == .close(.failed(JobFailure(kind: .io, sentence: "vda: bad"))))
    #expect(job.counters.scanned == 2 * mebibyte)
    #expect(job.counters.copied == 0)
  }

  @Test("a new speed lets a throttled thread go on")
  func speed() throws {
    var job = schedule(speed: 1)
    job.plan([extent(.copy, 0, 8 * mebibyte)])
    let piece = try job.piece(at: 0)
    #expect(piece.range.length == 65536, "one cluster goes at any speed")
    job.copied(piece, copied(65536), now: moment(0))
    let before = job.generation
    job.setSpeed(0, now: moment(50))
    #expect(job.generation != before)
    #expect(try job.piece(at: 50).range.offset.rawValue == 65536)
  }

  @Test("zero clusters do not count against the speed limit")
  func zeroes() throws {
    var job = schedule(speed: 1)
    job.plan([extent(.zero, 0, 8 * mebibyte)])
    for _ in 0..<8 {
      let piece = try job.piece(at: 0)
      #expect(piece.isZero)
      var result = PopulateResult()
      result.zeroed = piece.range.length
      job.copied(piece, result, now: moment(0))
    }
  }

  @Test("a pending job makes durable what it copied, and writes its header when it is finalized")
  func pending() throws {
    var job = CopySchedule(
      length: mebibyte, clusterSize: 65536, threads: 2, speed: 0, policy: .report,
      isPaused: false, autoFinalize: false, now: moment(0))
    job.plan([extent(.copy, 0, mebibyte)])
    let piece = try job.piece(at: 0)
    job.copied(piece, copied(mebibyte), now: moment(1))
    #expect(job.next(at: 1) == .wait(until: moment(1000)))
    #expect(job.state.phase == .pending)
    #expect(job.next(at: 1000) == .flush)
    let isFinalized = job.finalize()
    #expect(isFinalized)
    // The flush may still fail.
    #expect(job.next(at: 1001) == .wait(until: nil))
    job.flushed(scanned: mebibyte)
    #expect(job.counters.durable == mebibyte)
    #expect(job.next(at: 1001) == .finish)
    job.finished()
    #expect(job.next(at: 1002) == .close(.completed))
  }

  @Test("a suspended job gives no more work")
  func suspend() {
    var job = schedule()
    job.suspend()
    #expect(job.next(at: 0) == .exit)
  }

  @Test("beside a busy guest one small piece goes at a time")
  func guest() throws {
    var job = schedule()
    job.plan([extent(.copy, 0, 8 * mebibyte)])
    let busy = GuestActivity(inFlight: 3, completed: 10, latencyNanoseconds: 100_000)
    guard case .copy(let piece) = job.next(guest: busy, now: moment(10)) else {
      Issue.record("no piece")
      return
    }
    #expect(piece.range.length == 1 << 20)
    #expect(piece.pace == .gentle)
    #expect(job.next(guest: busy, now: moment(11)) == .wait(until: nil))
  }

  @Test("clusters that a guest had in hand are looked at again, and not counted twice")
  func scanAgain() throws {
    var job = schedule(length: mebibyte)
    job.plan([extent(.copy, 0, mebibyte)])
    let piece = try job.piece(at: 0)
    var result = copied(mebibyte - 65536)
    result.skipped = 65536
    job.copied(piece, result, now: moment(0))
    #expect(job.next(at: 1) == .finish)
    let goesOn = job.scanAgain()
    #expect(goesOn)
    #expect(job.next(at: 1) == .plan(.disk, .zero))
    job.planned(
      [extent(.skip, 0, mebibyte - 65536), extent(.copy, mebibyte - 65536, 65536)],
      diskSize: mebibyte, now: moment(1))
    let again = try job.piece(at: 1)
    job.copied(again, copied(65536), now: moment(2))
    #expect(job.counters.copied == mebibyte)
    #expect(job.counters.skipped == 0)
    #expect(job.next(at: 3) == .finish)
  }
}

@Suite("GuestBackoff")
struct GuestBackoffTests {
  @Test("beside a guest that does not suffer the break is three times what a piece took too long")
  func fairness() {
    var backoff = GuestBackoff()
    let guest = GuestActivity(inFlight: 1, completed: 1, latencyNanoseconds: 100_000)
    backoff.observe(guest, now: moment(0))
    backoff.pieceEnded(started: moment(0), now: moment(2))
    #expect(backoff.delay(now: moment(2)) == nil)
    backoff.pieceEnded(started: moment(2), now: moment(6))
    #expect(backoff.delay(now: moment(6)) == moment(12))
    backoff.pieceEnded(started: moment(12), now: moment(9000))
    #expect(backoff.delay(now: moment(9000)) == moment(9050), "and never longer than 50 ms")
  }

  @Test("breaks grow while the guest is slowed down, and go when it falls silent")
  func breaks() {
    var backoff = GuestBackoff()
    var completed: UInt64 = 0
    func look(_ time: UInt64, latency: UInt64) {
      completed += 10
      backoff.observe(
        GuestActivity(inFlight: 1, completed: completed, latencyNanoseconds: latency),
        now: moment(time))
    }
    look(0, latency: 100_000)
    look(10, latency: 100_000)
    #expect(backoff.breakNanoseconds == 0)
    for step in UInt64(2)..<20 { look(step * 10, latency: 5_000_000) }
    #expect(backoff.breakNanoseconds == GuestBackoff.longestBreak)
    backoff.pieceEnded(started: moment(199), now: moment(200))
    #expect(backoff.delay(now: moment(200)) == moment(250))
    for step in UInt64(20)..<40 { look(step * 10, latency: 110_000) }
    #expect(backoff.breakNanoseconds < 1_000_000)
    backoff.observe(
      GuestActivity(inFlight: 0, completed: completed, latencyNanoseconds: 9_000_000),
      now: moment(1000))
    #expect(!backoff.isGuestActive)
    #expect(backoff.delay(now: moment(1000)) == nil)
  }
}
