internal import Control

/// Why a command failed, as QMP tells it: one of few classes, and a sentence.
struct QMPError: Error, Equatable {
  /// The classes that QEMU still uses.
  enum Class: String {
    case generic = "GenericError"
    case commandNotFound = "CommandNotFound"
    case deviceNotActive = "DeviceNotActive"
  }

  var kind: Class
  var text: String

  init(_ kind: Class, _ text: String) {
    self.kind = kind
    self.text = text
  }

  init(_ text: String) {
    self.init(.generic, text)
  }

  /// A refusal of a command; the words are QEMU's where it refuses the same.
  init(_ error: ControlError) {
    self.init(Self.text(of: error.rule) ?? error.sentence)
  }

  /// A refusal of one of the commands whose names begin with `block-job-`, and of their HMP forms.
  static func ofBlockJob(_ error: ControlError) -> QMPError {
    if case .noJob(let id) = error.rule {
      return QMPError(.deviceNotActive, "Block job '\(id)' not found")
    }
    return QMPError(error)
  }

  var json: JSONText {
    .object([.init("class", .string(kind.rawValue)), .init("desc", .string(text))])
  }

  private static func text(of rule: ControlRule?) -> String? {
    switch rule {
    case nil: nil
    case .noDevice(let device, let node): "Cannot find device='\(device)' nor node-name='\(node)'"
    case .noSuchLayer(let name): "Can't find '\(name)' in the backing chain"
    case .notBelow(let node, let device): "Node '\(node)' is not a backing image of '\(device)'"
    case .notInChain(let node, let device):
      "Node '\(node)' is not in a chain starting from '\(device)'"
    case .exclusive(let one, let other):
      "'\(one)' and '\(other)' cannot be specified at the same time"
    case .backingFileWithoutBase: "backing file specified, but streaming the entire chain"
    case .badJobID(let id): "Invalid job ID '\(id)'"
    case .jobIDInUse(let id): "Job ID '\(id)' already in use"
    case .busy(let device):
      "Node '\(device)' is busy: block device is in use by block job: stream"
    case .readOnly: "Block node is read-only"
    case .negativeSpeed: "Parameter 'speed' expects a non-negative value"
    case .noJob: "Job not found"
    case .verb(let verb, let job, let state):
      "Job '\(job)' in state '\(state)' cannot accept command verb '\(verb)'"
    case .alreadyPaused: "Job is already paused"
    case .notPaused: "Can't resume a job that was not paused"
    case .cancelWhilePaused(let job): "The block job for device '\(job)' is currently paused"
    case .badNodeName(let name): "Invalid node-name: '\(name)'"
    case .nodeNameInUse: "New overlay node-name already in use"
    case .nodeNameMissing: "New overlay node-name missing"
    case .aborted: "Transaction aborted using Abort action"
    case .negativeSize: "Parameter 'size' expects a >0 size"
    case .sizeTooLarge(let size, let limit): "offset(\(size)) exceeds maximum(\(limit))"
    case .unevenSize: "The new size must be a multiple of 512"
    case .readOnlyImage: "Image is read-only"
    case .noOverlay(let mode, let path, let reason):
      "Could not \(mode == .existing ? "open" : "create") '\(path)': \(reason)"
    case .badFormat(let format): "Unknown file format '\(format)'"
    }
  }
}
