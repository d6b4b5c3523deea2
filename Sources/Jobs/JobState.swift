internal import HostSystem

// Where a job stands, as a machine without threads, disk or clock.
//
//                 pause            everything scanned
//        paused <------- running ---------------------> finishing --done--> ending(completed)
//           |   ------->  |  ^                              |
//           |    resume   |  | resume                       | failure, not cancel: the header
//           |             v  |                              v is being written
//           |          stopped                       ending(failed) / stopped
//           v             |
//        ending(cancelled), ending(failed) --last thread--> ended
//
// `ending` waits for the threads that still copy, then the record goes; `ended` is what a user sees
// as the end. `suspended` leaves everything for the next mount and has no way out.

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

  private(set) var phase: Phase
  /// A cancel came while the header was being written: it takes hold if that does not succeed.
  private var isCancelWaiting = false
  /// The first error that was passed over.
  private(set) var firstFailure: JobFailure?
  let policy: ErrorPolicy

  init(policy: ErrorPolicy, isPaused: Bool = false) {
    self.policy = policy
    phase = isPaused ? .paused : .running
  }

  /// Nothing will happen any more.
  var isOver: Bool {
    switch phase {
    case .ended, .suspended: true
    case .running, .paused, .stopped, .finishing, .ending: false
    }
  }

  /// Holds a running job; whatever does not run stays as it is.
  mutating func pause() {
    if phase == .running { phase = .paused }
  }

  /// Lets a held job go on; a running one is left alone.
  mutating func resume() {
    switch phase {
    case .paused, .stopped: phase = .running
    case .running, .finishing, .ending, .ended, .suspended: break
    }
  }

  /// Ends the job. One that is writing its header completes nevertheless if it can: it has nothing
  /// left to give up.
  mutating func cancel() {
    switch phase {
    case .running, .paused, .stopped: phase = .ending(.cancelled)
    case .finishing: isCancelWaiting = true
    case .ending, .ended, .suspended: break
    }
  }

  /// Leaves the job to the next mount.
  mutating func suspend() {
    switch phase {
    case .running, .paused, .stopped, .finishing: phase = .suspended
    case .ending, .ended, .suspended: break
    }
  }

  /// Takes an error by the policy of the job.
  mutating func fail(_ failure: JobFailure) -> Reaction {
    switch phase {
    case .ending, .ended, .suspended:
      return .drop
    case .running, .paused, .stopped, .finishing:
      if isCancelWaiting {
        phase = .ending(.cancelled)
        return .drop
      }
      switch policy {
      case .report: break
      case .enospc where failure.kind != .noSpace: break
      case .stop, .enospc:
        phase = .stopped(failure)
        return .retry
      case .ignore where phase != .finishing:
        if firstFailure == nil { firstFailure = failure }
        return .passOver
      case .ignore: break
      }
      phase = .ending(.failed(failure))
      return .drop
    }
  }

  /// Everything was looked at and nobody copies any more.
  mutating func allScanned() {
    guard phase == .running else { return }
    if let firstFailure {
      phase = .ending(.failed(firstFailure))
    } else {
      phase = .finishing
    }
  }

  /// The header was found to need more copying first.
  mutating func scanAgain() {
    if phase == .finishing { phase = isCancelWaiting ? .ending(.cancelled) : .running }
  }

  /// The new header is durable.
  mutating func finished() {
    if phase == .finishing { phase = .ending(.completed) }
  }

  /// The record is gone: the job is over.
  mutating func closed() {
    if case .ending(let outcome) = phase { phase = .ended(outcome) }
  }
}
