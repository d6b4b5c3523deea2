internal import HostSystem

// Where a job stands, as a machine without threads, disk or clock.
//
//                 pause         everything scanned
//        paused <------- running -----+----------------> finishing --done--> ending(completed)
//           |   ------->  |  ^         |                     ^   |
//           |    resume   |  |         `-> pending --finalize'   | failure, not cancel: the
//           |             v  | resume         |                  v header is being written
//           |          stopped                |             ending(failed) / stopped
//           v             v                   v
//        ending(cancelled), ending(failed) --last thread--> ended
//
// `pending` has copied everything and waits for `finalize`; a job that finalizes itself passes it by.
// `ending` waits for the threads that still copy, then the record goes; `ended` is what a user sees
// as the end. `suspended` leaves everything for the next mount and has no way out.
//
// Beside the phase goes the stage, which is what QEMU would tell. Each change of it, and each error
// that the policy decided on, is a notice; whoever holds the state takes the notices together with
// the decision, so that their order is that of the decisions. The end is not among them: it is told
// with its numbers, once the job is over. One step is none of QEMU's: a header that cannot be written
// holds a `stop` job, from pending to paused.

/// How a job ended.
enum JobOutcome: Sendable, Equatable {
  case completed
  case cancelled
  case failed(JobFailure)
}

/// The states of a job, and what moves it from one to another.
struct JobState: Sendable {
  enum Phase: Sendable, Equatable {
    case running
    case paused
    case stopped(JobFailure)
    case pending
    case finishing
    case ending(JobOutcome)
    case ended(JobOutcome)
    case suspended
  }

  /// What becomes of the range that failed.
  enum Reaction: Sendable, Equatable {
    /// It is tried again once the job goes on.
    case retry
    /// It is left out.
    case passOver
    /// Nobody needs it any more.
    case drop
  }

  /// What is to be told of the job.
  enum Notice: Sendable, Equatable {
    case stage(JobStage)
    /// It waits for `finalize`.
    case pending
    case error(JobEvent.Action)
  }

  private(set) var phase: Phase
  /// Where the job stands in QEMU's words.
  private(set) var stage = JobStage.created
  /// What was not told yet.
  private(set) var notices = [Notice.stage(.created)]
  /// The header may be written as soon as everything is copied.
  private var isFinalized: Bool
  /// A cancel came while the header was being written: it takes hold if that does not succeed.
  private var isCancelWaiting = false
  /// The first error that was passed over.
  private(set) var firstFailure: JobFailure?
  let policy: ErrorPolicy

  init(policy: ErrorPolicy, isPaused: Bool = false, autoFinalize: Bool = true) {
    self.policy = policy
    isFinalized = autoFinalize
    phase = isPaused ? .paused : .running
    move(to: .running)
    if isPaused { move(to: .paused) }
  }

  /// Nothing will happen any more.
  var isOver: Bool {
    switch phase {
    case .ended, .suspended: true
    case .running, .paused, .stopped, .pending, .finishing, .ending: false
    }
  }

  /// It writes its header, or ends.
  var isAtItsEnd: Bool {
    switch phase {
    case .finishing, .ending: true
    case .running, .paused, .stopped, .pending, .ended, .suspended: false
    }
  }

  /// Why a job that was finalized and is not at its end any more has not completed; nil if it has, or if
  /// it copies what was missing.
  func unfinished(device: String) -> JobError? {
    switch phase {
    case .ended(.completed), .running, .paused, .pending, .finishing, .ending: nil
    case .ended(.failed(let failure)), .stopped(let failure): .failed(failure)
    case .ended(.cancelled): .noJob(device: device)
    case .suspended: .closing(device: device)
    }
  }

  /// Takes what is to be told, in order.
  mutating func takeNotices() -> [Notice] {
    defer { notices = [] }
    return notices
  }

  /// Holds a running job; whatever does not run stays as it is.
  mutating func pause() {
    guard phase == .running else { return }
    phase = .paused
    move(to: .paused)
  }

  /// Lets a held job go on; a running one is left alone.
  mutating func resume() {
    switch phase {
    case .paused, .stopped:
      phase = .running
      move(to: .running)
    case .running, .pending, .finishing, .ending, .ended, .suspended: break
    }
  }

  /// Lets a pending job write its header; false if it is not pending.
  mutating func finalize() -> Bool {
    guard phase == .pending else { return false }
    isFinalized = true
    phase = .finishing
    return true
  }

  /// Ends the job. One that is writing its header completes nevertheless if it can: it has nothing
  /// left to give up.
  mutating func cancel() {
    switch phase {
    case .running, .paused, .stopped, .pending: end(.cancelled)
    case .finishing: isCancelWaiting = true
    case .ending, .ended, .suspended: break
    }
  }

  /// Leaves the job to the next mount.
  mutating func suspend() {
    switch phase {
    case .running, .paused, .stopped, .pending, .finishing: phase = .suspended
    case .ending, .ended, .suspended: break
    }
  }

  /// Takes an error by the policy of the job.
  mutating func fail(_ failure: JobFailure) -> Reaction {
    switch phase {
    case .ending, .ended, .suspended:
      return .drop
    case .running, .paused, .stopped, .pending, .finishing:
      if isCancelWaiting {
        end(.cancelled)
        return .drop
      }
      let isPastCopying = phase == .pending || phase == .finishing
      switch policy {
      case .report: break
      case .enospc where failure.kind != .noSpace: break
      case .stop, .enospc:
        notices.append(.error(.stop))
        phase = .stopped(failure)
        move(to: .paused)
        return .retry
      case .ignore where !isPastCopying:
        notices.append(.error(.ignore))
        if firstFailure == nil { firstFailure = failure }
        return .passOver
      case .ignore: break
      }
      // QEMU knows no such event for a header that cannot be written.
      if phase != .finishing { notices.append(.error(.report)) }
      end(.failed(failure))
      return .drop
    }
  }

  /// Everything was looked at and nobody copies any more.
  mutating func allScanned() {
    guard phase == .running else { return }
    if let firstFailure { return end(.failed(firstFailure)) }
    // One that went on from there to copy what was missing is still pending.
    if stage != .pending {
      move(to: .waiting)
      move(to: .pending)
      if !isFinalized { notices.append(.pending) }
    }
    phase = isFinalized ? .finishing : .pending
  }

  /// The header was found to need more copying first.
  mutating func scanAgain() {
    guard phase == .finishing else { return }
    if isCancelWaiting { return end(.cancelled) }
    phase = .running
  }

  /// The new header is durable.
  mutating func finished() {
    if phase == .finishing { end(.completed) }
  }

  /// The record is gone: the job is over.
  mutating func closed() {
    if case .ending(let outcome) = phase { phase = .ended(outcome) }
  }

  private mutating func end(_ outcome: JobOutcome) {
    phase = .ending(outcome)
    if outcome != .completed { move(to: .aborting) }
  }

  private mutating func move(to next: JobStage) {
    if stage == next { return }
    // In QEMU a held job is let go before it ends.
    if stage == .paused, next == .aborting { move(to: .running) }
    stage = next
    notices.append(.stage(next))
  }
}
