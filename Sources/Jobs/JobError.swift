package import Chain
package import HostSystem

/// Why a job was refused; nothing was changed then.
package enum JobError: Error, Sendable {
  /// The device has a job already, or one is just being started.
  case busy(device: String)
  /// Another job has a layer in hand that this one would need.
  case layerBusy(LayerID, path: String, device: String)
  /// There are as many streams into layers of the device as there may be.
  case tooMany(Int, device: String)
  /// There is no job to act on.
  case noJob(device: String)
  /// An id that no job may have.
  case badID(String, device: String)
  /// Another job has the id.
  case idInUse(String, device: String)
  /// There are as many concluded jobs as a device may have.
  case undismissed(Int, device: String)
  /// Only a pending job can be finalized.
  case notPending(JobStage, device: String)
  /// A pending job has nothing left that could be held.
  case pending(device: String)
  /// The job was finalized, and failed or is held by an error.
  case failed(JobFailure)
  /// Only a concluded job can be dismissed.
  case notConcluded(JobStage, device: String)
  /// There is no concluded job to dismiss.
  case noneConcluded(device: String)
  /// The filesystem is being unmounted.
  case closing(device: String)
  /// The disk is read-only.
  case readOnly(device: String)
  /// A string for the header was given, but no base that it could name.
  case backingFileWithoutBase(device: String)
  /// What has to be copied does not fit beside the active image.
  case noSpace(device: String, needed: UInt64, free: UInt64)
  /// The disk refused or failed.
  case chain(ChainError, device: String)
  /// The record of the job could not be written.
  case record(RecordError, device: String)
  /// No thread could be had.
  case thread(SystemError, device: String)
}

extension JobError: CustomStringConvertible {
  /// What upper layers act on.
  package var kind: FailureKind {
    switch self {
    case .busy, .layerBusy, .tooMany, .closing, .idInUse, .undismissed, .notPending, .pending,
      .notConcluded:
      .busy
    case .noJob, .noneConcluded: .notFound
    case .badID: .invalid
    case .failed(let failure): failure.kind
    case .readOnly: .readOnly
    case .backingFileWithoutBase: .invalid
    case .noSpace: .noSpace
    case .chain(let error, _): error.kind
    case .record(let error, _): error.kind
    case .thread(let error, _): error.kind
    }
  }

  /// One sentence that begins with the device.
  package var description: String {
    switch self {
    case .busy(let device): "\(device): the device has a job already; cancel it or wait for its end"
    case .layerBusy(_, let path, let device):
      "\(device): another job has \(path) in hand; cancel it or wait for its end"
    case .tooMany(let count, let device):
      "\(device): \(count) streams into its layers run already; wait for the end of one"
    case .noJob(let device): "\(device): no job is running"
    case .badID(let id, let device):
      "\(device): a job id is a letter, then letters, digits, hyphens, dots, underscores; not \(id)"
    case .idInUse(let id, let device):
      "\(device): another job is called \(id); give another id, or dismiss that job if it is over"
    case .undismissed(let count, let device):
      "\(device): \(count) concluded jobs are there already; dismiss some"
    case .notPending(let stage, let device):
      "\(device): the job is \(stage.rawValue); only a pending one can be finalized"
    case .pending(let device): "\(device): the job is pending; finalize or cancel it"
    case .failed(let failure): failure.sentence
    case .notConcluded(let stage, let device):
      "\(device): the job is \(stage.rawValue); only a concluded one can be dismissed"
    case .noneConcluded(let device): "\(device): there is no such concluded job to dismiss"
    case .closing(let device): "\(device): the filesystem is being unmounted"
    case .readOnly(let device): "\(device): the device is read-only"
    case .backingFileWithoutBase(let device):
      "\(device): backing-file needs a base, but the whole chain is to be streamed"
    case .noSpace(let device, let needed, let free):
      "\(device): streaming needs \(needed) bytes, but only \(free) are free"
    case .chain(let error, let device): Sentence.about(device, error.description)
    case .record(let error, let device): Sentence.about(device, error.description)
    case .thread(let error, let device): "\(device): no thread for the job: \(error)"
    }
  }
}

/// What stopped, or would have stopped, a running job.
package struct JobFailure: Error, Sendable, Equatable {
  /// What decides whether `on-error=enospc` holds the job.
  package var kind: FailureKind
  /// What happened, in a sentence.
  package var sentence: String

  /// A failure with both its parts.
  package init(kind: FailureKind, sentence: String) {
    self.kind = kind
    self.sentence = sentence
  }

  /// A failure of the disk, told of its device.
  init(_ error: ChainError, device: String) {
    self.init(kind: error.kind, sentence: Sentence.about(device, error.description))
  }
}

/// Sentences of lower layers name paths; those of a job name the device as well, once.
enum Sentence {
  static func about(_ device: String, _ text: String) -> String {
    text.hasPrefix(device + ":") || text.hasPrefix(device + " ") ? text : "\(device): \(text)"
  }
}
