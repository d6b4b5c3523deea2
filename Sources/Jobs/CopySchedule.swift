internal import Chain
internal import HostSystem

// What each thread of a job does next.
//
// The threads ask, act without any lock, and tell what came of it:
//
//     next ->  plan      ask the disk what lies at the cursor        -> planned | failed
//              copy      populate one piece                          -> copied | failed
//              flush     make what was copied durable                -> flushed | failed
//              finish    everything is up: rebase                    -> finished | failed
//              close     the job ends, nobody else works             -> closed
//              wait      until something changes, or a moment comes
//              exit      nothing will come any more
//
// The disk comes first, then the internal snapshots of its image, each from its start. One thread at a
// time plans, one flushes; a flush goes beside the copying. Extents of the plan wait in a queue and are
// cut into pieces only when they are taken, so that a new limit or a busy guest counts from the next
// piece on. A piece that failed and is to be tried again goes back to the front.
//
// Pure: time and the guest's activity come in as values.

/// The decisions of a streaming job.
struct CopySchedule: Sendable {
  /// What a thread is to do.
  enum Step: Sendable, Equatable {
    case plan(StreamPart, GuestOffset)
    case copy(Piece)
    case flush
    case finish
    case close(JobOutcome)
    case wait(until: MonotonicTime?)
    case exit
  }

  /// A range for one thread, with what it took from the throttle.
  struct Piece: Sendable, Equatable {
    var part = StreamPart.disk
    var range: GuestRange
    var isZero: Bool
    var pace: CopyPace
    var taken: UInt64
    var started: MonotonicTime
  }

  /// Bytes by what happened to them.
  struct Counters: Sendable, Equatable {
    var copied: UInt64 = 0
    var zero: UInt64 = 0
    var skipped: UInt64 = 0
    var failed: UInt64 = 0
    var durable: UInt64 = 0
    var scanned: UInt64 { copied + zero + skipped + failed }
  }

  static let flushNanoseconds: Int64 = 1_000_000_000
  // Zero clusters are metadata only; a piece is what may pass before a cancel is seen.
  private static let zeroPieceBytes: UInt64 = 16 << 20
  // A part of the disk whose layers cannot even be asked is passed over in steps of this.
  private static let unplannedBytes: UInt64 = 1 << 20
  private static let mostScans = 8

  private(set) var state: JobState
  private(set) var throttle: Throttle
  private(set) var counters = Counters()
  private var diskLength: UInt64
  private let snapshotLength: UInt64
  /// Grows with every change, so that a waiting thread sees that there was one.
  private(set) var generation: UInt64 = 0
  private(set) var meter = RateMeter()
  private var backoff = GuestBackoff()

  /// Which of the streams that share a limit this is.
  private let number: StreamNumber
  private let clusterSize: UInt64
  private let threads: Int
  private var part = StreamPart.disk
  private var cursor = GuestOffset.zero
  private var queue: [(part: StreamPart, extent: StreamExtent)] = []
  private var isPlanning = false
  private var isPlanned: Bool
  private var inFlight = 0
  private var isFlushing = false
  private var isFinishing = false
  private var isClosing = false
  private var needsFlush = false
  private var lastFlush: MonotonicTime
  private var scans = 1

  init(
    length: UInt64, snapshotLength: UInt64 = 0, clusterSize: Int, threads: Int, speed: UInt64,
    policy: ErrorPolicy, isPaused: Bool, autoFinalize: Bool = true, number: StreamNumber,
    now: MonotonicTime
  ) {
    self.number = number
    diskLength = length
    isPlanned = length == 0
    self.snapshotLength = snapshotLength
    self.clusterSize = UInt64(clusterSize)
    self.threads = threads
    state = JobState(policy: policy, isPaused: isPaused, autoFinalize: autoFinalize)
    throttle = Throttle(limit: speed, now: now)
    lastFlush = now
  }

  /// All that there is to look at.
  var length: UInt64 { diskLength + snapshotLength }

  /// Something of the job is going on at this moment.
  var isBusy: Bool { isPlanning || isFlushing || isFinishing || isClosing || inFlight > 0 }

  // MARK: - What to do

  /// The next step of the thread that asks. `share` is the limit of all streams together.
  mutating func next(
    guest: GuestActivity, share: inout SharedThrottle, now: MonotonicTime
  ) -> Step {
    backoff.observe(guest, now: now)
    if state.phase != .running { share.leave(number) }
    switch state.phase {
    case .suspended, .ended:
      return .exit
    case .ending(let outcome):
      if isBusy { return .wait(until: nil) }
      isClosing = true
      return .close(outcome)
    case .finishing:
      // A flush of a pending job may still fail, and then the header must not have been written.
      if isFinishing || isFlushing { return .wait(until: nil) }
      isFinishing = true
      return .finish
    case .running, .paused, .stopped, .pending:
      if let step = flushStep(now: now) { return step }
    }
    guard state.phase == .running else { return .wait(until: flushTime) }
    if queue.isEmpty {
      share.rest(number)
      return planStep(guest: guest, share: &share, now: now)
    }
    return copyStep(&share, now: now)
  }

  private var flushTime: MonotonicTime? {
    needsFlush && !isFlushing
      ? lastFlush.advanced(byNanoseconds: Self.flushNanoseconds) : nil
  }

  private mutating func flushStep(now: MonotonicTime) -> Step? {
    guard let flushTime, flushTime <= now else { return nil }
    isFlushing = true
    needsFlush = false
    lastFlush = now
    return .flush
  }

  private mutating func planStep(
    guest: GuestActivity, share: inout SharedThrottle, now: MonotonicTime
  ) -> Step {
    if isPlanning { return .wait(until: flushTime) }
    if !isPlanned {
      isPlanning = true
      return .plan(part, cursor)
    }
    // A piece or a flush under way may still fail, and come back.
    if isBusy { return .wait(until: flushTime) }
    if part == .disk, snapshotLength > 0 {
      part = .snapshots
      cursor = .zero
      isPlanned = false
      return planStep(guest: guest, share: &share, now: now)
    }
    state.allScanned()
    generation += 1
    return next(guest: guest, share: &share, now: now)
  }

  private mutating func copyStep(_ share: inout SharedThrottle, now: MonotonicTime) -> Step {
    let (part, first) = queue[0]
    if inFlight >= backoff.mostInFlight(threads: threads) {
      share.rest(number)
      return .wait(until: flushTime)
    }
    if let moment = earliest(backoff.delay(now: now), throttle.delay(now: now)) {
      // What this job may not take now, others may.
      share.rest(number)
      return .wait(until: flushTime.map { min($0, moment) } ?? moment)
    }
    if let moment = share.delay(of: number, now: now) {
      return .wait(until: flushTime.map { min($0, moment) } ?? moment)
    }
    let isZero = first.kind == .zero
    let most =
      isZero && throttle.limit == 0 && share.limit == 0
      ? max(Self.zeroPieceBytes / clusterSize * clusterSize, clusterSize)
      : share.pieceBytes(
        upTo: throttle.pieceBytes(upTo: backoff.pieceBytes, clusterSize: clusterSize),
        clusterSize: clusterSize)
    let range = GuestRange(offset: first.range.offset, length: min(most, first.range.length))
    if range.length == first.range.length {
      queue.removeFirst()
    } else {
      queue[0].extent.range = GuestRange(from: range.end, to: first.range.end)
    }
    // An image without zero clusters copies zeroes too; that is charged when it is known.
    let taken = isZero ? 0 : range.length
    throttle.take(taken, now: now)
    share.take(taken, by: number, now: now)
    inFlight += 1
    return .copy(
      Piece(
        part: part, range: range, isZero: isZero, pace: backoff.pace, taken: taken, started: now))
  }

  private func earliest(_ one: MonotonicTime?, _ other: MonotonicTime?) -> MonotonicTime? {
    // Both have to be over.
    guard let one, let other else { return one ?? other }
    return max(one, other)
  }

  // MARK: - What came of it

  /// The disk told what lies at the cursor; nothing means that this is the end of the part.
  mutating func planned(_ extents: [StreamExtent], diskSize: UInt64, now: MonotonicTime) {
    isPlanning = false
    generation += 1
    diskLength = max(diskLength, diskSize)
    guard let last = extents.last else {
      isPlanned = true
      return
    }
    cursor = last.range.end
    isPlanned = cursor.rawValue >= partEnd(diskSize: diskSize)
    for extent in extents {
      switch extent.kind {
      case .copy, .zero: queue.append((part, extent))
      case .skip: if scans == 1 { counters.skipped += extent.range.length }
      }
    }
    meter.note(copied: counters.copied, scanned: counters.scanned, now: now)
  }

  private func partEnd(diskSize: UInt64) -> UInt64 {
    switch part {
    case .disk: diskSize
    case .snapshots: snapshotLength
    }
  }

  /// A piece is done.
  mutating func copied(
    _ piece: Piece, _ result: PopulateResult, share: inout SharedThrottle, now: MonotonicTime
  ) {
    inFlight -= 1
    generation += 1
    throttle.settle(taken: piece.taken, used: result.copied)
    share.settle(taken: piece.taken, used: result.copied, by: number)
    backoff.pieceEnded(started: piece.started, now: now)
    counters.copied += result.copied
    counters.zero += result.zeroed
    if scans == 1 {
      counters.skipped += result.skipped
    } else {
      // Counted as skipped the first time, when somebody else had the cluster in hand.
      counters.skipped -= min(counters.skipped, result.copied + result.zeroed)
    }
    if result.copied + result.zeroed > 0 { needsFlush = true }
    meter.note(copied: counters.copied, scanned: counters.scanned, now: now)
  }

  /// A piece could not be copied.
  mutating func failed(_ piece: Piece, _ failure: JobFailure, now: MonotonicTime) {
    inFlight -= 1
    generation += 1
    // Parts of it may have been copied, and a limit is rather kept too well.
    needsFlush = true
    switch state.fail(failure) {
    case .retry:
      let extent = StreamExtent(range: piece.range, kind: piece.isZero ? .zero : .copy)
      queue.insert((piece.part, extent), at: 0)
      meter.reset()
    case .passOver: if scans == 1 { counters.failed += piece.range.length }
    case .drop: break
    }
  }

  /// The layers could not be asked at the cursor.
  mutating func planFailed(_ failure: JobFailure, diskSize: UInt64) {
    isPlanning = false
    generation += 1
    switch state.fail(failure) {
    case .retry: meter.reset()
    case .drop: break
    case .passOver:
      let step = max(Self.unplannedBytes, clusterSize)
      let partEnd = partEnd(diskSize: diskSize)
      let end = GuestOffset(min(cursor.rawValue + step, partEnd))
      if scans == 1 { counters.failed += end - cursor }
      cursor = end
      isPlanned = end.rawValue >= partEnd
    }
  }

  /// Everything counted before the flush began is durable.
  mutating func flushed(scanned: UInt64) {
    isFlushing = false
    generation += 1
    counters.durable = max(counters.durable, scanned)
  }

  /// A flush failed: nothing that was copied since the last one is safe.
  mutating func flushFailed(_ failure: JobFailure) {
    isFlushing = false
    generation += 1
    needsFlush = true
    _ = state.fail(failure)
  }

  /// The new header is durable, and with it everything else.
  mutating func finished() {
    isFinishing = false
    generation += 1
    counters.durable = counters.scanned
    state.finished()
  }

  /// The header could not be written.
  mutating func finishFailed(_ failure: JobFailure) {
    isFinishing = false
    generation += 1
    _ = state.fail(failure)
  }

  /// Clusters were left out because a guest's write had them in hand and then failed. Looks at the
  /// whole disk again; gives false after some rounds, for then it is something else.
  mutating func scanAgain() -> Bool {
    guard scans < Self.mostScans else { return false }
    scans += 1
    isFinishing = false
    generation += 1
    part = .disk
    cursor = .zero
    isPlanned = false
    state.scanAgain()
    return true
  }

  /// The record is gone.
  mutating func closed() {
    isClosing = false
    generation += 1
    state.closed()
  }

  // MARK: - What users ask for

  mutating func pause() {
    generation += 1
    state.pause()
    meter.reset()
  }

  mutating func resume() {
    generation += 1
    state.resume()
  }

  /// False if the job is not pending.
  mutating func finalize() -> Bool {
    generation += 1
    return state.finalize()
  }

  mutating func cancel() {
    generation += 1
    state.cancel()
  }

  mutating func suspend() {
    generation += 1
    state.suspend()
  }

  mutating func takeNotices() -> [JobState.Notice] { state.takeNotices() }

  mutating func setSpeed(_ limit: UInt64, now: MonotonicTime) {
    generation += 1
    throttle.setLimit(limit, now: now)
    meter.reset()
  }

  /// Another limit of all streams is in force.
  mutating func sharedLimitChanged() {
    generation += 1
    meter.reset()
  }
}
