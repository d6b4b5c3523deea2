package import BlockIO
package import HostSystem
package import ImageDriver

// Every way in which a chain can fail or refuse. A case holds the evidence as values, the sentence
// is made here from them, and `kind` is what upper layers act on.

/// What went wrong with a disk, or why something was refused.
package enum ChainError: Error, Sendable {
  /// A file of the host failed.
  case storage(StorageError)
  /// An image failed or is damaged.
  case image(ImageError)
  /// A system call outside of any image failed.
  case system(SystemError)

  /// The image that is to be mounted is not qcow2, and nothing said that it is raw.
  case notQcow2(path: String)
  /// The image that is to be mounted has another program's format.
  case foreign(path: String, ForeignFormat)
  /// A backing file has another program's format.
  case backingForeign(path: String, overlay: String, ForeignFormat)
  /// An overlay names no format and its backing file is not qcow2.
  case formatMissing(backing: String, overlay: String)
  /// An overlay says that its backing file is qcow2, which it is not.
  case backingNotQcow2(path: String, overlay: String)
  /// An overlay names something that is not opened.
  case backingRefused(name: String, overlay: String, reason: String)
  /// An overlay names a file that is not there.
  case backingMissing(path: String, overlay: String)
  /// An image needs a data file and does not say which.
  case dataFileRequired(image: String)
  /// An image names a data file that is not there.
  case dataFileMissing(path: String, image: String)
  /// An image names a data file that is not opened.
  case dataFileRefused(name: String, image: String, reason: String)
  /// A file comes twice in the chain.
  case loop(path: String, overlay: String)
  /// The chain has more layers than are opened.
  case tooManyLayers(limit: Int, overlay: String)
  /// A backing file lies outside of the directory that `backing-root` allows.
  case outsideRoot(path: String, root: String)

  /// The disk is read-only.
  case readOnly(disk: String)
  /// The disk was closed.
  case closed(disk: String)
  /// No layer below the active image goes by this name.
  case noSuchLayer(disk: String, name: String, have: [String])
  /// Part of the disk still lives only in layers that were to be dropped.
  case notStreamed(disk: String, range: GuestRange)
  /// No string was found by which the active image's header could name the base.
  case backingStringInvalid(string: String, overlay: String, base: String)
  /// A layer below the active image takes no stream.
  case layerRefused(path: String, reason: String)
  /// The host lets a layer below the active image only be read.
  case layerReadOnly(path: String)
  /// A snapshot was refused; nothing changed.
  case snapshotRefused(path: String, kind: FailureKind, reason: String)
  /// The size of the disk cannot be changed so.
  case growRefused(disk: String, kind: FailureKind, reason: String)
}

extension ChainError {
  /// What upper layers act on.
  package var kind: FailureKind {
    switch self {
    case .storage(let error): error.kind
    case .image(let error): error.kind
    case .system(let error): error.kind
    case .notQcow2, .formatMissing, .backingNotQcow2: .invalid
    case .backingRefused, .foreign, .backingForeign: .unsupported
    case .dataFileRequired: .invalid
    case .dataFileRefused: .unsupported
    case .backingMissing, .dataFileMissing, .noSuchLayer: .notFound
    case .loop: .loop
    case .tooManyLayers: .tooLarge
    case .outsideRoot: .notPermitted
    case .readOnly: .readOnly
    case .closed: .io
    case .notStreamed: .busy
    case .backingStringInvalid: .invalid
    case .layerRefused: .unsupported
    case .layerReadOnly: .readOnly
    case .snapshotRefused(_, let kind, _): kind
    case .growRefused(_, let kind, _): kind
    }
  }
}

extension ChainError {
  /// The file that the host did not open or make, and why; nil for all other errors.
  package var unopened: (path: String, reason: String)? {
    guard case .storage(.system(let path, let cause)) = self, cause.call == "open" else {
      return nil
    }
    return (path, cause.reason)
  }
}

extension ChainError: CustomStringConvertible {
  /// One sentence that names the thing and the fix.
  package var description: String {
    switch self {
    case .storage(let error): error.description
    case .image(let error): error.description
    case .system(let error): error.description
    case .notQcow2(let path):
      "\(path) is not a qcow2 image; write raw:\(path) if it is a raw one"
    case .foreign(let path, let format): "\(path) is \(format.advice(for: path))"
    case .backingForeign(let path, let overlay, let format):
      "\(path), the backing file of \(overlay), is \(format.advice(for: path)), "
        + "and name that with: qemu-img rebase -u -F qcow2 -b \(ShellWord(path + ".qcow2")) "
        + "\(ShellWord(overlay))"
    case .formatMissing(let backing, let overlay):
      "\(overlay) does not say which format its backing file \(backing) has, and it is not qcow2; "
        + "if it is raw, say so with: qemu-img rebase -u -F raw -b \(ShellWord(backing)) "
        + "\(ShellWord(overlay))"
    case .backingNotQcow2(let path, let overlay):
      "\(path), the backing file of \(overlay), is not a qcow2 image as \(overlay) says"
    case .backingRefused(let name, let overlay, let reason):
      "the backing file \(name) of \(overlay) is refused: \(reason)"
    case .backingMissing(let path, let overlay):
      "\(overlay) needs the backing file \(path), which does not exist"
    case .dataFileRequired(let image):
      "\(image): 'data-file' is required for this image, and its header names none; "
        + "name it with qemu-img amend"
    case .dataFileMissing(let path, let image):
      "\(image) needs the data file \(path), which does not exist"
    case .dataFileRefused(let name, let image, let reason):
      "the data file \(name) of \(image) is refused: \(reason)"
    case .loop(let path, let overlay):
      "the backing file \(path) of \(overlay) creates an infinite loop"
    case .tooManyLayers(let limit, let overlay):
      "the chain goes on below \(overlay), but only \(limit) layers are supported; "
        + "shorten it with qemu-img rebase"
    case .outsideRoot(let path, let root):
      "the file \(path) lies outside of \(root), which backing-root allows"
    case .readOnly(let disk): "\(disk) is read-only"
    case .closed(let disk): "\(disk) is closed"
    case .noSuchLayer(let disk, let name, let have):
      have.isEmpty
        ? "\(disk): no layer named \(name), there is nothing below the active image"
        : "\(disk): no layer named \(name) (have \(have.joined(separator: ", ")))"
    case .notStreamed(let disk, let range):
      "\(disk): bytes at \(range.offset.rawValue) are only in the layers that were to be dropped"
    case .backingStringInvalid(let string, let overlay, let base):
      "\(string) does not lead from \(overlay) to \(base)"
    case .layerRefused(let path, let reason):
      "\(path) cannot be streamed into: \(reason)"
    case .layerReadOnly(let path):
      "\(path) cannot be streamed into: the file can only be read; make it writable"
    case .snapshotRefused(let path, _, let reason): "no snapshot at \(path): \(reason)"
    case .growRefused(let disk, _, let reason): "\(disk) cannot grow: \(reason)"
    }
  }
}
