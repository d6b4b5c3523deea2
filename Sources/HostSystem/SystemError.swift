internal import Glibc

/// A system call that failed: which one, and with what errno.
package struct SystemError: Error, Sendable, Hashable, CustomStringConvertible {
  /// The call's name, as in its manual page.
  package let call: String
  /// The errno that it left.
  package let number: Int32

  /// Records that `call` failed with `number`.
  package init(call: String, number: Int32) {
    self.call = call
    self.number = number
  }

  /// The meaning of the errno, for callers that decide by it.
  ///
  /// Numbers that no caller tells apart from a failing device are `.io`.
  package var kind: FailureKind {
    switch number {
    case EINVAL, ENAMETOOLONG, ENOTDIR, EISDIR, EBADF: .invalid
    case EBUSY, EAGAIN, ETXTBSY, EADDRINUSE: .busy
    case ENOENT, ENXIO, ENODEV: .notFound
    case EROFS: .readOnly
    case EEXIST: .exists
    case ENOSPC, EDQUOT: .noSpace
    case EOPNOTSUPP, ENOSYS, ENOTTY, EXDEV: .unsupported
    case EPERM: .notPermitted
    case EACCES: .accessDenied
    case EFBIG, EOVERFLOW, ERANGE: .tooLarge
    case EINTR, ECANCELED: .interrupted
    case ENOTEMPTY: .notEmpty
    case ELOOP: .loop
    case EUCLEAN: .corrupt
    default: .io
    }
  }

  /// The system's own words for the errno, such as `No space left on device`.
  package var reason: String { systemMessage(for: number) }

  /// The call and the reason, such as `open: No such file or directory`.
  package var description: String { "\(call): \(reason)" }
}
