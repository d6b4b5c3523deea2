internal import Chain
internal import HostSystem

// One running stream: the threads that do what the schedule says.
//
// Every thread runs the same loop, so that copying, planning, flushing and ending need no hand-over:
// whoever asks first does it. No lock is held while the disk works; the schedule's lock is held for
// decisions only.
//
// The end, in this order: (rebase, durable) - everything copied durable - an inner layer is a backing
// layer again - record gone - told to the owner - threads leave. A crash before the record is gone
// starts the job again at the next mount, which finds what is left to do in the image's own tables,
// perhaps nothing.

/// The copying threads of a stream, and what users ask of them.
final class StreamJob: Sendable {
  /// What does not change while the job runs.
  struct Setting: Sendable {
    var id: String
    /// There are layers to be dropped; if not, the job has no length and leaves the header as it is.
    var hasWork: Bool
    var base: LayerID?
    var basePath: String?
    var backingFile: String?
    var onError: ErrorPolicy
    var autoFinalize: Bool
    var autoDismiss: Bool
    var isResumed: Bool
    var started: WallTime
    var order: MonotonicTime
  }

  private static let planExtents = 256

  let setting: Setting
  private let disk: Disk
  private let time: any TimeSource
  private let record: RecordFile
  private let events: (any JobEventSink)?
  /// What the disk is, if it is a layer of another one.
  private let inner: InnerDisk?
  private let owner: any StreamJobOwner
  private let threads: Int
  private let limit: SharedLimit
  private let schedule: Monitor<CopySchedule>
  private let workers = Monitor<[Worker]>([])

  init(
    disk: Disk, setting: Setting, record: RecordFile, speed: UInt64, isPaused: Bool,
    snapshotLength: UInt64, limit: SharedLimit, time: any TimeSource, threads: Int,
    events: (any JobEventSink)?, inner: InnerDisk?, owner: any StreamJobOwner
  ) {
    self.inner = inner
    self.limit = limit
    self.events = events
    self.threads = threads
    self.disk = disk
    self.setting = setting
    self.record = record
    self.time = time
    self.owner = owner
    schedule = Monitor(
      CopySchedule(
        length: setting.hasWork ? disk.virtualSize : 0, snapshotLength: snapshotLength,
        clusterSize: disk.clusterSize,
        threads: max(1, threads - 1), speed: speed, policy: setting.onError, isPaused: isPaused,
        autoFinalize: setting.autoFinalize, number: limit.throttle.withLock { $0.newNumber() },
        now: time.now()))
  }

  /// Starts the threads; if not all can be had, none stays.
  func start() throws(SystemError) {
    // The first events come before those of any thread.
    change { _ in }
    do {
      for number in 1...threads {
        let worker = try Worker(
          name: "stream\(number)-\(disk.name)", priority: .background
        ) { self.run() }
        workers.withLock { $0.append(worker) }
      }
    } catch {
      suspend()
      throw error
    }
  }

  /// Waits until all threads have left.
  func join() {
    for worker in workers.withLock({ $0 }) { worker.join() }
  }

  // MARK: - What users ask for

  /// Cancels, and returns when the job is over.
  func cancel() {
    change { $0.cancel() }
    schedule.wait(while: { !$0.state.isOver })
  }

  /// Lets a pending job write its header, and returns when it is over, or copies what was missing.
  func finalize() throws(JobError) {
    let (isPending, stage) = change { ($0.finalize(), $0.state.stage) }
    if !isPending { throw .notPending(stage, device: disk.name) }
    schedule.wait(while: { $0.state.isAtItsEnd })
    if let error = schedule.withLock({ $0.state }).unfinished(device: disk.name) { throw error }
  }

  /// Holds the job; false, and nothing changed, if it is pending.
  func pause() throws(RecordError) -> Bool {
    let isPending = change { schedule in
      schedule.pause()
      return schedule.state.phase == .pending
    }
    if isPending { return false }
    try record.change { $0.isPaused = true }
    return true
  }

  func resume() throws(RecordError) {
    change { $0.resume() }
    try record.change { $0.isPaused = false }
  }

  func setSpeed(_ limit: UInt64) throws(RecordError) {
    let now = time.now()
    change { $0.setSpeed(limit, now: now) }
    try record.change { $0.speed = limit }
  }

  /// Looks anew at the limit that all streams share.
  func sharedLimitChanged() { schedule.change { $0.sharedLimitChanged() } }

  /// Holds the job for the next mount and waits until nothing of it goes on.
  func suspend() {
    change { $0.suspend() }
    join()
  }

  /// Makes a decision, and tells the events that come of it.
  private func change<Result: Sendable>(_ decide: (inout CopySchedule) -> Result) -> Result {
    let (result, hasNews) = schedule.change { schedule in
      let result = decide(&schedule)
      return (result, tell(&schedule))
    }
    if hasNews { events?.announce() }
    return result
  }

  /// Puts the events of a decision in their place; true if there are any. Lock: that of the schedule.
  private func tell(_ schedule: inout CopySchedule) -> Bool {
    if schedule.state.notices.isEmpty { return false }
    for notice in schedule.takeNotices() {
      switch notice {
      case .stage(let stage): events?.note(.stage(stage, id: setting.id))
      case .pending: events?.note(.pending(id: setting.id))
      case .error(let action): events?.note(.error(id: setting.id, action))
      }
    }
    return true
  }

  /// The job as it is now. One whose threads are just leaving still counts as running.
  func status() -> JobStatus {
    let schedule = schedule.withLock { $0 }
    let counters = schedule.counters
    var status = JobStatus(
      device: disk.name, id: setting.id, state: .running, stage: schedule.state.stage,
      isResumed: setting.isResumed, length: schedule.length,
      offset: min(counters.scanned, schedule.length), copied: counters.copied,
      zero: counters.zero, skipped: counters.skipped,
      durable: min(counters.durable, schedule.length), speed: schedule.throttle.limit,
      base: setting.basePath, onError: setting.onError, autoFinalize: setting.autoFinalize,
      autoDismiss: setting.autoDismiss, ioStatus: .ok, isBusy: schedule.isBusy,
      started: setting.started, order: setting.order)
    switch schedule.state.phase {
    case .running, .finishing:
      let pace = schedule.meter.pace(
        copied: counters.copied, scanned: counters.scanned,
        left: schedule.length - status.offset, now: time.now())
      status.rate = pace.rate
      status.eta = pace.eta
    case .paused: status.state = .paused
    case .pending: status.state = .pending
    case .stopped(let failure):
      status.state = .stoppedOnError
      status.error = failure.sentence
      status.ioStatus = failure.kind == .noSpace ? .nospace : .failed
    case .ending, .ended, .suspended: break
    }
    return status
  }

  // MARK: - The threads

  private func run() {
    while true {
      let now = time.now()
      let load = disk.guestLoad
      let guest = GuestActivity(
        inFlight: load.inFlight, completed: load.completed,
        latencyNanoseconds: load.latencyNanoseconds)
      // Lock: the limit of all streams, then this job's schedule.
      let (step, generation, hasNews) = limit.throttle.withLock { share in
        schedule.withLock { schedule in
          let step = schedule.next(guest: guest, share: &share, now: now)
          return (step, schedule.generation, tell(&schedule))
        }
      }
      if hasNews { events?.announce() }
      switch step {
      case .plan(let part, let offset): plan(part, from: offset)
      case .copy(let piece): copy(piece)
      case .flush: flush()
      case .finish: finish()
      case .close(let outcome): close(outcome)
      case .wait(let moment):
        schedule.wait(until: moment, while: { $0.generation == generation })
      case .exit: return
      }
    }
  }

  private func plan(_ part: StreamPart, from offset: GuestOffset) {
    do {
      let extents = try disk.streamExtents(
        of: part, from: offset, base: setting.base, limit: Self.planExtents)
      let size = disk.virtualSize
      let now = time.now()
      change { $0.planned(extents, diskSize: size, now: now) }
    } catch {
      let failure = JobFailure(error, device: disk.name)
      let size = disk.virtualSize
      change { $0.planFailed(failure, diskSize: size) }
    }
  }

  private func copy(_ piece: CopySchedule.Piece) {
    do {
      let result = try disk.populate(
        piece.part, piece.range, base: setting.base, pace: piece.pace)
      let now = time.now()
      // Lock: as above.
      let hasNews = limit.throttle.withLock { share in
        schedule.change { schedule in
          schedule.copied(piece, result, share: &share, now: now)
          return tell(&schedule)
        }
      }
      if hasNews { events?.announce() }
    } catch {
      let failure = JobFailure(error, device: disk.name)
      let now = time.now()
      change { $0.failed(piece, failure, now: now) }
    }
  }

  private func flush() {
    // Order: what is counted here was written before the flush begins.
    let scanned = schedule.withLock { $0.counters.scanned }
    do {
      try disk.flush()
      change { $0.flushed(scanned: scanned) }
    } catch {
      let failure = JobFailure(error, device: disk.name)
      change { $0.flushFailed(failure) }
    }
  }

  private func finish() {
    do {
      if setting.hasWork {
        try disk.rebase(to: setting.base, backingString: setting.backingFile)
        // Order: the header is durable before the chain around the layer gets as short in memory.
        try inner?.adopt()
      }
      change { $0.finished() }
    } catch {
      if case .notStreamed = error, change({ $0.scanAgain() }) { return }
      let failure = JobFailure(error, device: disk.name)
      change { $0.finishFailed(failure) }
    }
  }

  private func close(_ outcome: JobOutcome) {
    var status = self.status()
    switch outcome {
    case .completed:
      status.state = .completed
      status.durable = status.offset
    case .cancelled:
      status.state = .cancelled
    case .failed(let failure):
      status.state = .failed
      status.error = failure.sentence
    }
    if outcome != .completed {
      // What was copied stays, so that a new stream goes on from there.
      do {
        try disk.flush()
        status.durable = status.offset
      } catch {
        owner.note(Sentence.about(disk.name, error.description))
      }
    }
    owner.endInner()
    // Order: a record that is still there starts the job again, so it goes last of all.
    do { try record.remove() } catch {
      owner.note(Sentence.about(disk.name, error.description))
    }
    status.stage = .concluded
    status.ended = time.wallTime()
    status.isBusy = false
    status.rate = nil
    status.eta = nil
    owner.jobEnded(self, status)
    change { $0.closed() }
  }
}

/// Who started a job and wants to know of its end.
protocol StreamJobOwner: AnyObject, Sendable {
  /// The job is over; called once, from a thread of the job.
  func jobEnded(_ job: StreamJob, _ status: JobStatus)
  /// Nothing more is copied: a layer that was streamed into becomes a backing layer again.
  func endInner()
  /// Something went wrong that does not stop the job.
  func note(_ sentence: String)
}
