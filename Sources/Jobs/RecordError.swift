package import HostSystem

/// What can be wrong with the record of a job.
package enum RecordError: Error, Sendable, CustomStringConvertible {
  /// The file could not be written, read or taken away.
  case unwritable(path: String, kind: FailureKind, reason: String)
  /// The file is not a record that can be followed; it is left as it is.
  case ignored(path: String, reason: String)

  /// What upper layers act on.
  package var kind: FailureKind {
    switch self {
    case .unwritable(_, let kind, _): kind
    case .ignored: .corrupt
    }
  }

  /// One sentence that names the file.
  package var description: String {
    switch self {
    case .unwritable(let path, _, let reason): "the job record \(path) cannot be kept: \(reason)"
    case .ignored(let path, let reason): "the job record \(path) is ignored: \(reason)"
    }
  }
}
