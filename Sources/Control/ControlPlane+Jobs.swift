internal import HostSystem
internal import Jobs

// Jobs by their ids, as QMP and HMP know them. The control files know the job of a device instead;
// the work is the same, and so are its rules, but QEMU refuses some things that change nothing.

extension ControlPlane {
  /// What QMP's query-block-jobs returns.
  package var blockJobs: JSONText { StatusJSON.all(devices.flatMap(\.listed)) }

  /// What QMP's query-jobs returns.
  package var jobs: JSONText { StatusJSON.allBrief(devices.flatMap(\.listed)) }

  /// Does something to the job that has an id, if there is one that takes it now.
  ///
  /// When it returns it has taken effect; a cancelled job is over.
  package func act(_ action: JobAction, onJob id: String) throws(ControlError) {
    for device in devices {
      for jobs in [device.jobs] + device.inner.all {
        guard let job = jobs.listed.first(where: { $0.id == id }) else { continue }
        return try telling(device) { () throws(ControlError) in
          try check(action, job)
          try carryOut(action, id, jobs)
        }
      }
    }
    throw noJob(id)
  }

  private func check(_ action: JobAction, _ job: JobStatus) throws(ControlError) {
    // QEMU looks at this first, and at the stage for all else.
    if action == .resume, !job.isHeld {
      throw ControlError(
        kind: .busy, sentence: "\(job.device): the job is not paused", rule: .notPaused)
    }
    guard action.isAllowed(in: job.stage) else {
      throw ControlError(
        kind: .busy,
        sentence: "\(job.device): a job that is \(job.stage.rawValue) takes no \(action.verb)",
        rule: .verb(action.verb, job: job.id, state: job.stage.rawValue))
    }
    switch action {
    case .pause where job.isHeld:
      throw ControlError(
        kind: .busy, sentence: "\(job.device): the job is paused already", rule: .alreadyPaused)
    case .cancelUnlessPaused where job.isHeld:
      throw ControlError(
        kind: .busy, sentence: "\(job.device): the job is paused; resume it, or force the cancel",
        rule: .cancelWhilePaused(job.id))
    case .setSpeed(let limit) where limit < 0: throw .negativeSpeed(limit)
    case .cancel, .cancelUnlessPaused, .pause, .resume, .setSpeed, .complete, .finalize, .dismiss:
      break
    }
  }

  private func carryOut(
    _ action: JobAction, _ id: String, _ jobs: StreamJobs
  ) throws(ControlError) {
    do {
      switch action {
      case .cancel, .cancelUnlessPaused: try jobs.cancel(id: id)
      case .pause: try jobs.pause(id: id)
      case .resume: try jobs.resume(id: id)
      case .setSpeed(let limit): try jobs.setSpeed(UInt64(limit), id: id)
      case .complete: preconditionFailure("a stream is never ready to be completed")
      case .finalize: try jobs.finalize(id: id)
      case .dismiss: try jobs.dismiss(id: id)
      }
    } catch {
      switch error {
      // It has ended since it was looked at.
      case .noJob, .noneConcluded: throw noJob(id)
      default: throw ControlError(error)
      }
    }
  }

  private func noJob(_ id: String) -> ControlError {
    ControlError(kind: .notFound, sentence: "no job is called \(id)", rule: .noJob(id))
  }
}

extension ControlError {
  static func negativeSpeed(_ limit: Int64) -> ControlError {
    ControlError(
      kind: .invalid, sentence: "a speed is 0 or more, not \(limit)", rule: .negativeSpeed)
  }
}
