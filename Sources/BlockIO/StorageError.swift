internal import Glibc
package import HostSystem

/// Why storage could not do what was asked of it.
package enum StorageError: Error, Sendable, Equatable, CustomStringConvertible {
  /// The host refused a system call on the file at `path`.
  case system(path: String, SystemError)
  /// Somebody else uses the image in a way that does not go together with ours.
  case locked(path: String, conflict: LockConflict)
  /// The file ends inside the bytes that were needed.
  case truncated(path: String, offset: HostOffset, wanted: Int, found: Int)
  /// The storage was opened for reading.
  case readOnly(path: String)
  /// A flush failed before, so nothing since the one before it is known to be durable.
  case flushFailed(path: String, SystemError)
  /// An offset, with the length behind it, is beyond what a file can hold.
  case outOfRange(path: String, offset: HostOffset, length: UInt64)
  /// The bytes at `path` are encrypted, and there is no key for them.
  case encrypted(path: String)
  /// What is at `path` is neither a regular file nor a block device.
  case notAFile(path: String)
  /// What is at `path` is kept in a file that this process serves itself.
  case servedHere(path: String, file: String)

  /// The meaning of the error, for callers that decide by it.
  package var kind: FailureKind {
    switch self {
    case .system(_, let cause): cause.kind
    case .locked: .busy
    case .truncated: .corrupt
    case .readOnly: .readOnly
    case .flushFailed: .io
    case .outOfRange: .tooLarge
    case .encrypted: .accessDenied
    case .notAFile, .servedHere: .invalid
    }
  }

  /// The file that it is about.
  package var path: String {
    switch self {
    case .system(let path, _), .locked(let path, _), .truncated(let path, _, _, _),
      .readOnly(let path), .flushFailed(let path, _), .outOfRange(let path, _, _),
      .encrypted(let path), .notAFile(let path), .servedHere(let path, _):
      path
    }
  }

  /// A sentence that names the file.
  package var description: String {
    switch self {
    case .system(let path, let cause): "\(path): \(cause)"
    case .locked(let path, let conflict): "\(path): \(conflict)"
    case .truncated(let path, let offset, let wanted, let found):
      "\(path): the file ends too early: \(wanted) bytes needed at \(offset), \(found) there"
    case .readOnly(let path): "\(path): open read-only"
    case .flushFailed(let path, let cause):
      "\(path): an earlier flush failed (\(cause)), so what was written since may be lost; "
        + "see to the host's disk, then mount it anew"
    case .outOfRange(let path, let offset, let length):
      "\(path): \(length) bytes at \(offset) are beyond the largest file"
    case .encrypted(let path): "\(path): the data is encrypted, and was opened without its secret"
    case .notAFile(let path): "\(path): not a regular file or block device"
    case .servedHere(let path, let file):
      path == file
        ? "\(path): it is a file of this very mount; take a place outside of it"
        : "\(path): it would be kept in \(file), a file of this very mount; take a place outside of it"
    }
  }
}

/// A lock that stands in the way, and who holds it if that can be seen.
package struct LockConflict: Sendable, Equatable, CustomStringConvertible {
  /// Which permission it is about, in QEMU's word: `write`, `consistent read`, ...
  package var permission: String
  /// Whether the permission itself was refused, or our wish that nobody else uses it.
  package var refusal: Refusal
  /// The process that holds the image, if it can be seen.
  package var holder: LockHolder?

  /// Which side of a permission met the other one.
  package enum Refusal: Sendable, Equatable {
    /// The holder does not let others use the permission.
    case use
    /// The holder uses the permission, which we would not share.
    case share
  }

  /// Records who stands in the way.
  package init(permission: String, refusal: Refusal, holder: LockHolder?) {
    self.permission = permission
    self.refusal = refusal
    self.holder = holder
  }

  /// QEMU's sentence, with the holder behind it.
  package var description: String {
    let shared = refusal == .share ? "shared " : ""
    let who = holder.map { ", it is in use by \($0)" } ?? ", another process is using the image"
    return "failed to get \(shared)\"\(permission)\" lock\(who)"
  }
}

/// A process that has an image open.
package struct LockHolder: Sendable, Equatable, CustomStringConvertible {
  /// Its process id.
  package var process: Int32
  /// Its command, as ps shows the short form.
  package var command: String

  /// Names a process.
  package init(process: Int32, command: String) {
    self.process = process
    self.command = command
  }

  /// Command and process id.
  package var description: String {
    let own = process == getpid() ? ", as another device or layer of the same mount" : ""
    return "\(command) (pid \(process))\(own)"
  }
}
