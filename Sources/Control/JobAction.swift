internal import Jobs

/// What can be done to a job that is known by its id.
package enum JobAction: Sendable, Equatable {
  /// Ends it, whatever it is doing.
  case cancel
  /// Ends it, unless it is held.
  case cancelUnlessPaused
  /// Holds it.
  case pause
  /// Lets it go on.
  case resume
  /// Sets its limit in bytes a second, 0 for none.
  case setSpeed(Int64)
  /// Ends it once both sides are the same, which no stream ever says of itself.
  case complete
  /// Lets it write its header.
  case finalize
  /// Lets it go.
  case dismiss

  /// QEMU's word for it.
  var verb: String {
    switch self {
    case .cancel, .cancelUnlessPaused: "cancel"
    case .pause: "pause"
    case .resume: "resume"
    case .setSpeed: "set-speed"
    case .complete: "complete"
    case .finalize: "finalize"
    case .dismiss: "dismiss"
    }
  }

  /// Whether QEMU does it to a job at this stage.
  func isAllowed(in stage: JobStage) -> Bool {
    switch self {
    case .cancel, .cancelUnlessPaused:
      switch stage {
      case .created, .running, .paused, .waiting, .pending: true
      case .aborting, .concluded, .null: false
      }
    case .pause, .resume, .setSpeed:
      switch stage {
      case .created, .running, .paused: true
      case .waiting, .pending, .aborting, .concluded, .null: false
      }
    case .complete: false
    case .finalize: stage == .pending
    case .dismiss: stage == .concluded
    }
  }
}
