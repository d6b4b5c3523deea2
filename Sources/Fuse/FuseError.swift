package import HostSystem

/// Why a file system could not be mounted or served.
package enum FuseError: Error, Sendable, Hashable, CustomStringConvertible {
  /// The mount point will not do.
  case mountPoint(MountPointError)
  /// libfuse refused the options; its own words, a line each.
  case optionsRefused([String])
  /// libfuse or the kernel refused to mount; libfuse's own words, a line each.
  case mountRefused(path: String, [String])
  /// A thread could not be started, or another call failed.
  case system(SystemError)
  /// The connection to the kernel broke while it was served.
  case connectionLost(number: Int32)

  /// The meaning of the failure, for callers that act on it.
  package var kind: FailureKind {
    switch self {
    case .mountPoint(let error): error.kind
    case .optionsRefused: .invalid
    case .mountRefused: .notPermitted
    case .system(let error): error.kind
    case .connectionLost: .io
    }
  }

  /// The failure in a sentence.
  package var description: String {
    switch self {
    case .mountPoint(let error): error.description
    case .optionsRefused(let lines): "libfuse refuses the options: \(joined(lines))"
    // Without privilege fusermount3 mounts, and says on standard error itself what it refuses.
    case .mountRefused(let path, []): "\(path): cannot be mounted, as fusermount3 says"
    case .mountRefused(let path, let lines): "\(path): cannot be mounted: \(joined(lines))"
    case .system(let error): error.description
    case .connectionLost(let number):
      "the connection to the kernel broke: "
        + SystemError(call: "read of /dev/fuse", number: number).description
    }
  }

  private func joined(_ lines: [String]) -> String {
    lines.isEmpty ? "no reason given" : lines.joined(separator: "; ")
  }
}

/// Why a path cannot be mounted on.
package enum MountPointError: Error, Sendable, Hashable, CustomStringConvertible {
  /// There is nothing at the path.
  case missing(path: String)
  /// What is there is not a directory.
  case notADirectory(path: String)
  /// The directory has entries, which the mount would hide.
  case notEmpty(path: String)
  /// A FUSE file system is mounted there and answers.
  case alreadyMounted(path: String, source: String)
  /// A FUSE file system is mounted there, and its process is gone.
  case dead(path: String)
  /// The path could not be looked at.
  case unreadable(path: String, SystemError)

  /// The meaning of the failure.
  package var kind: FailureKind {
    switch self {
    case .missing: .notFound
    case .notADirectory: .invalid
    case .notEmpty: .notEmpty
    case .alreadyMounted, .dead: .busy
    case .unreadable(_, let error): error.kind
    }
  }

  /// The failure in a sentence, with what to do where there is something.
  package var description: String {
    switch self {
    case .missing(let path): "\(path): no such directory to mount on (mkdir \(path))"
    case .notADirectory(let path): "\(path): not a directory to mount on"
    case .notEmpty(let path): "\(path): the directory to mount on is not empty"
    case .alreadyMounted(let path, let source):
      "\(path): \(source) is mounted there already (umount \(path))"
    case .dead(let path):
      "\(path): a FUSE file system is mounted there whose process is gone"
        + " (fusermount3 -uz \(path))"
    case .unreadable(let path, let error): "\(path): \(error.reason)"
    }
  }
}
