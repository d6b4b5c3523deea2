package import HostSystem

/// What a job does when a range cannot be copied.
package enum ErrorPolicy: String, Sendable, Codable, CaseIterable {
  /// The job stops there and fails.
  case report
  /// It goes on to the end and then fails with the first error.
  case ignore
  /// It holds until it is resumed, and tries the same place again.
  case stop
  /// `stop` where space is missing, `report` for everything else.
  case enospc
}

/// What a stream is asked to do.
package struct StreamRequest: Sendable, Equatable {
  /// The layer to keep, by any of its names; nil drops all layers.
  package var base: String?
  /// Bytes a second, 0 for no limit.
  package var speed: UInt64
  /// What happens on errors.
  package var onError: ErrorPolicy
  /// The string for the active image's header; nil lets the chain choose.
  package var backingFile: String?
  /// What the job is called; nil is the name of the device.
  package var id: String?
  /// The header is written once everything is copied; else the job is pending until `finalize`.
  package var autoFinalize: Bool
  /// The job is gone when it is over; else it is concluded until `dismiss`.
  package var autoDismiss: Bool

  /// A request; what is left out is the default of `stream`.
  package init(
    base: String? = nil, speed: UInt64 = 0, onError: ErrorPolicy = .report,
    backingFile: String? = nil, id: String? = nil, autoFinalize: Bool = true,
    autoDismiss: Bool = true
  ) {
    self.base = base
    self.speed = speed
    self.onError = onError
    self.backingFile = backingFile
    self.id = id
    self.autoFinalize = autoFinalize
    self.autoDismiss = autoDismiss
  }
}

/// A job as a user sees it at one moment.
package struct JobStatus: Sendable, Equatable {
  /// Where the job stands. The raw values are those of the status files.
  package enum State: String, Sendable {
    /// It copies, or waits for its turn.
    case running
    /// It was told to hold.
    case paused
    /// It holds because of an error.
    case stoppedOnError = "stopped-on-error"
    /// It has copied everything, and waits for `finalize`.
    case pending
    /// It did all it was asked to.
    case completed
    /// It was cancelled.
    case cancelled
    /// It met an error.
    case failed
  }

  /// Whether errors hold the job, in QMP's words.
  package enum IOStatus: String, Sendable {
    /// None does.
    case ok
    /// One does, other than missing space.
    case failed
    /// Space is missing.
    case nospace
  }

  /// The name of the device.
  package var device: String
  /// What the job is called.
  package var id: String
  /// Where the job stands.
  package var state: State
  /// Where it stands in QEMU's words.
  package var stage: JobStage
  /// It was begun under an earlier mount.
  package var isResumed: Bool
  /// All that there is to look at, in bytes; 0 if there was nothing to stream.
  package var length: UInt64
  /// What has been looked at: copied, made zero or skipped.
  package var offset: UInt64
  /// Bytes copied into the active image.
  package var copied: UInt64
  /// Bytes that became zero clusters.
  package var zero: UInt64
  /// Bytes that were in the active image already or need not be there.
  package var skipped: UInt64
  /// How much of the offset survives a loss of power.
  package var durable: UInt64
  /// The limit in bytes a second, 0 for none.
  package var speed: UInt64
  /// Bytes copied a second of late, while it runs.
  package var rate: UInt64?
  /// Seconds that are left at the pace of late, while it runs and can be told.
  package var eta: UInt64?
  /// The path of the layer that is kept.
  package var base: String?
  /// What happens on errors.
  package var onError: ErrorPolicy
  /// It writes the header by itself.
  package var autoFinalize: Bool = true
  /// It goes by itself when it is over.
  package var autoDismiss: Bool = true
  /// Whether an error holds it.
  package var ioStatus: IOStatus
  /// It is copying at this moment.
  package var isBusy: Bool
  /// When it was first started.
  package var started: WallTime
  /// When it ended.
  package var ended: WallTime?
  /// Why it failed or stopped.
  package var error: String?
  /// When it was started under this mount: orders jobs by age.
  package var order: MonotonicTime

  /// A user or an error holds it.
  package var isHeld: Bool { state == .paused || state == .stoppedOnError }

  /// It has ended, one way or another.
  package var hasEnded: Bool {
    switch state {
    case .running, .paused, .stoppedOnError, .pending: false
    case .completed, .cancelled, .failed: true
    }
  }
}
