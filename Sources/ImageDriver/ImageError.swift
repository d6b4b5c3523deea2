package import BlockIO
package import Encryption
package import HostSystem
package import Qcow2Format

/// Why an image could not do what was asked of it.
package enum ImageError: Error, Sendable, Equatable, CustomStringConvertible {
  /// The image file refused.
  case storage(StorageError)
  /// The image at `path` breaks the format.
  case format(path: String, FormatError)
  /// A table of the image at `path` says what cannot be.
  case corrupt(path: String, reason: String)
  /// The image needs what chainfs does not have.
  case unsupported(path: String, feature: String)
  /// The image is encrypted, and there is no secret for it.
  case secretNeeded(path: String)
  /// The image cannot be decrypted.
  case encryption(path: String, EncryptionError)
  /// The image must be repaired before it is written to.
  case needsRepair(path: String, reason: String)
  /// A persistent bitmap of the image keeps its disk from growing.
  case bitmapInTheWay(path: String, name: String, reason: String)
  /// The L1 table of an image with such clusters has no room for a disk of `size` bytes.
  case diskTooLarge(path: String, size: UInt64, clusterSize: Int)
  /// The image was opened for reading.
  case readOnly(path: String)
  /// The tables of the image are as large as they may be.
  case tablesFull(path: String)

  /// The meaning of the error, for callers that decide by it.
  package var kind: FailureKind {
    switch self {
    case .storage(let cause): cause.kind
    case .format, .corrupt: .corrupt
    case .unsupported: .unsupported
    case .secretNeeded: .accessDenied
    case .encryption(_, let cause): cause.kind
    case .needsRepair: .corrupt
    case .bitmapInTheWay: .unsupported
    case .diskTooLarge: .tooLarge
    case .readOnly: .readOnly
    case .tablesFull: .noSpace
    }
  }

  /// A sentence that names the image and, where there is one, the way out.
  package var description: String {
    switch self {
    case .storage(let cause): cause.description
    case .format(let path, let cause): "\(path): \(cause)"
    case .corrupt(let path, let reason):
      "\(path): the image is corrupt: \(reason); look at it with chainfs check"
    case .unsupported(let path, let feature):
      "\(path): \(feature) is not supported yet; qemu-img convert makes an image without it"
    case .secretNeeded(let path):
      "\(path): the image is encrypted; give the file that holds its secret with -o secret=FILE"
    case .encryption(let path, let cause): "\(path): \(cause)"
    case .needsRepair(let path, let reason):
      "\(path): \(reason); mend it with chainfs check --repair all \(path), or mount it"
        + " with -o ro"
    case .bitmapInTheWay(let path, let name, let reason):
      "\(path): the disk cannot grow with its persistent bitmap \(name): \(reason);"
        + " remove it with qemu-img bitmap --remove"
    case .diskTooLarge(let path, let size, let clusterSize):
      "\(path): clusters of \(clusterSize) bytes make no disk of \(size) bytes;"
        + " larger ones, of 2 MiB at most, make larger disks"
    case .readOnly(let path): "\(path): open read-only"
    case .tablesFull(let path): "\(path): the image's refcount table has reached its limit"
    }
  }
}
