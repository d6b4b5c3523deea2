internal import Glibc
internal import HostSystem

// The one place where a failure becomes a number.

extension FailureKind {
  /// The errno of a refused control write.
  var commandErrno: Int32 {
    switch self {
    case .invalid: EINVAL
    case .busy: EBUSY
    case .notFound: ENOENT
    case .readOnly: EROFS
    case .exists: EEXIST
    case .noSpace: ENOSPC
    case .unsupported: ENOTSUP
    case .notPermitted: EPERM
    case .accessDenied: EACCES
    case .corrupt, .io: EIO
    case .tooLarge: EFBIG
    case .interrupted: EINTR
    case .notEmpty: ENOTEMPTY
    case .loop: ELOOP
    }
  }

  /// The errno of a failed read or write of a disk: to its user a disk is full, read-only or broken.
  var diskErrno: Int32 {
    switch self {
    case .noSpace: ENOSPC
    case .readOnly: EROFS
    case .unsupported: EOPNOTSUPP
    case .invalid, .busy, .notFound, .exists, .notPermitted, .accessDenied, .corrupt, .io,
      .tooLarge, .interrupted, .notEmpty, .loop:
      EIO
    }
  }
}
