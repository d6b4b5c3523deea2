import HostSystem
import Jobs

/// One thing that a workload does.
enum Step: Sendable {
  case open(String)
  /// Opens the image that was the active one last.
  case reopen
  case read(Int, Int)
  case write(Int, Int)
  case zero(Int, Int)
  case discard(Int, Int)
  case preallocate(Int, Int)
  case flush
  case snapshot(String)
  /// Brings a part up, as a stream to the base does; nil drops all that is below.
  case populate(base: String?)
  case rebase(base: String?)
  /// Streams all that is below a layer into it.
  case inner(String)
  /// Finds that somebody else has a layer that it would stream into.
  case innerInUse(String)
  case grow(Int)
  case job(base: String?, ErrorPolicy)
  /// Starts a stream and leaves it to the next mount.
  case leaveJob(base: String?)
  /// Goes on with a stream that was left.
  case resumeJob
  /// What a stream would do, and what the chain is like.
  case look
  case close
  /// Something else; it has to throw if it fails.
  case other(String, @Sendable (Run) throws -> Void)

  var name: String {
    switch self {
    case .open(let name): "open \(name)"
    case .reopen: "open again"
    case .read(let offset, let count): "read \(offset)+\(count)"
    case .write(let offset, let count): "write \(offset)+\(count)"
    case .zero(let offset, let count): "zero \(offset)+\(count)"
    case .discard(let offset, let count): "discard \(offset)+\(count)"
    case .preallocate(let offset, let count): "preallocate \(offset)+\(count)"
    case .flush: "flush"
    case .snapshot(let name): "snapshot \(name)"
    case .populate(let base): "populate to \(base ?? "nothing")"
    case .rebase(let base): "rebase to \(base ?? "nothing")"
    case .inner(let target): "stream into \(target)"
    case .innerInUse(let target): "stream into \(target), in use"
    case .grow(let size): "grow to \(size)"
    case .job(let base, let policy): "stream to \(base ?? "nothing"), on-error=\(policy.rawValue)"
    case .leaveJob(let base): "stream to \(base ?? "nothing"), left"
    case .resumeJob: "stream resumed"
    case .look: "look"
    case .close: "close"
    case .other(let name, _): name
    }
  }
}

/// A workload, and the images that it starts from.
struct Scenario: Sendable {
  var name: String
  /// Makes the images, in a directory of its own.
  var script: String
  var isRaw = false
  /// The images are used as under a memory limit.
  var isPastPageCache = false
  var secret: String?
  /// The working directory is that of the images, which are named without one.
  var isRelative = false
  /// Done before anything is failed, with the files as they are left then.
  var preparation: [Step] = []
  var steps: [Step]
  /// Images that nothing may ever change.
  var untouched: [String] = []
  /// A crash leaves leaks that no mount gives back.
  var keepsLeaks = false
  /// Calls that a brief run fails besides: what comes of an error depends on the workload.
  var extraRuns = 0
  /// How many threads a job has; one makes the same calls in the same order each time.
  var threads = 1
  /// What else is looked at, besides the run's directory.
  var also: String?
}
