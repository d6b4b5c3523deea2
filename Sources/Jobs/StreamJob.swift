internal import Chain
internal import HostSystem

// One running stream: the threads that do what the schedule says.
//
// Every thread runs the same loop, so that copying, planning, flushing and ending need no hand-over:
// whoever asks first does it. No lock is held while the disk works; the schedule's lock is held for
// decisions only.
//
// The end, in this order: (rebase, durable) - everything copied durable - record gone - told to
// the owner - threads leave. A crash before the record is gone starts the job again at the next mount,
// which finds what is left to do in the image's own tables, perhaps nothing.

/// The copying threads of a stream, and what users ask of them.
final class StreamJob: Sendable {
  /// What does not change while the job runs.
  struct Setting: Sendable {
    var base: LayerID?
    var basePath: String?
    var backingFile: String?
    var onError: ErrorPolicy
    var isResumed: Bool
    var started: WallTime
    var order: MonotonicTime
  }

  private static let planExtents = 256

  let setting: Setting
  private let disk: Disk
  private let time: any TimeSource
  private let record: RecordFile
  private let owner: any StreamJobOwner
  private let threads: Int
  private let limit: SharedLimit
  private let schedule: Monitor<CopySchedule>
  private let workers = Monitor<[Worker]>([])

  init(
    disk: Disk, setting: Setting, record: RecordFile, speed: UInt64, isPaused: Bool,
    snapshotLength: UInt64, limit: SharedLimit, time: any TimeSource, threads: Int,
    owner: any StreamJobOwner
  ) {
    self.limit = limit
    self.threads = threads
    self.disk = disk
    self.setting = setting
    self.record = record
    self.time = time
    self.owner = owner
    schedule = Monitor(
      CopySchedule(
        length: disk.virtualSize, snapshotLength: snapshotLength, clusterSize: disk.clusterSize,
        threads: max(1, threads - 1), speed: speed, policy: setting.onError, isPaused: isPaused,
        number: limit.throttle.withLock { $0.newNumber() }, now: time.now()))
  }

  /// Starts the threads; if not all can be had, none stays.
  func start() throws(SystemError) {
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
    schedule.change { $0.cancel() }
    schedule.wait(while: { !$0.state.isOver })
  }

  func pause() throws(RecordError) {
    schedule.change { $0.pause() }
    try record.change { $0.isPaused = true }
  }

  func resume() throws(RecordError) {
    schedule.change { $0.resume() }
    try record.change { $0.isPaused = false }
  }

  func setSpeed(_ limit: UInt64) throws(RecordError) {
    let now = time.now()
    schedule.change { $0.setSpeed(limit, now: now) }
    try record.change { $0.speed = limit }
  }

  /// Looks anew at the limit that all streams share.
  func sharedLimitChanged() { schedule.change { $0.sharedLimitChanged() } }

  /// Holds the job for the next mount and waits until nothing of it goes on.
  func suspend() {
    schedule.change { $0.suspend() }
    join()
  }

  /// The job as it is now. One whose threads are just leaving still counts as running.
  func status() -> JobStatus {
    let schedule = schedule.withLock { $0 }
    let counters = schedule.counters
    var status = JobStatus(
      device: disk.name, state: .running, isResumed: setting.isResumed, length: schedule.length,
      offset: min(counters.scanned, schedule.length), copied: counters.copied,
      zero: counters.zero, skipped: counters.skipped,
      durable: min(counters.durable, schedule.length), speed: schedule.throttle.limit,
      base: setting.basePath, onError: setting.onError, ioStatus: .ok, isBusy: schedule.isBusy,
      started: setting.started, order: setting.order)
    switch schedule.state.phase {
    case .running, .finishing:
      let pace = schedule.meter.pace(
        copied: counters.copied, scanned: counters.scanned,
        left: schedule.length - status.offset, now: time.now())
      status.rate = pace.rate
      status.eta = pace.eta
    case .paused: status.state = .paused
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
      let (step, generation) = limit.throttle.withLock { share in
        schedule.withLock { schedule in
          let step = schedule.next(guest: guest, share: &share, now: now)
          return (step, schedule.generation)
        }
      }
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
      schedule.change { $0.planned(extents, diskSize: size, now: now) }
    } catch {
      let failure = JobFailure(error, device: disk.name)
      let size = disk.virtualSize
      schedule.change { $0.planFailed(failure, diskSize: size) }
    }
  }

  private func copy(_ piece: CopySchedule.Piece) {
    do {
      let result = try disk.populate(
        piece.part, piece.range, base: setting.base, pace: piece.pace)
      let now = time.now()
      // Lock: as above.
      limit.throttle.withLock { share in
        schedule.change { $0.copied(piece, result, share: &share, now: now) }
      }
    } catch {
      let failure = JobFailure(error, device: disk.name)
      let now = time.now()
      schedule.change { $0.failed(piece, failure, now: now) }
    }
  }

  private func flush() {
    // Order: what is counted here was written before the flush begins.
    let scanned = schedule.withLock { $0.counters.scanned }
    do {
      try disk.flush()
      schedule.change { $0.flushed(scanned: scanned) }
    } catch {
      let failure = JobFailure(error, device: disk.name)
      schedule.change { $0.flushFailed(failure) }
    }
  }

  private func finish() {
    do {
      try disk.rebase(to: setting.base, backingString: setting.backingFile)
      schedule.change { $0.finished() }
    } catch {
      if case .notStreamed = error, schedule.change({ $0.scanAgain() }) { return }
      let failure = JobFailure(error, device: disk.name)
      schedule.change { $0.finishFailed(failure) }
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
    // Order: a record that is still there starts the job again, so it goes last of all.
    do { try record.remove() } catch {
      owner.note(Sentence.about(disk.name, error.description))
    }
    status.ended = time.wallTime()
    status.isBusy = false
    status.rate = nil
    status.eta = nil
    owner.jobEnded(self, status)
    schedule.change { $0.closed() }
  }
}

/// Who started a job and wants to know of its end.
protocol StreamJobOwner: AnyObject, Sendable {
  /// The job is over; called once, from a thread of the job.
  func jobEnded(_ job: StreamJob, _ status: JobStatus)
  /// Something went wrong that does not stop the job.
  func note(_ sentence: String)
}
