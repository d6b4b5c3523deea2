package import Encryption

/// Which image makes a disk, and how it is to be read.
package enum ImageLocation: Sendable, Equatable {
  /// A qcow2 image; anything else at that path is refused.
  case qcow2(path: String)
  /// A file that is the disk byte by byte, whatever it holds.
  case raw(path: String)

  /// The path of the file.
  package var path: String {
    switch self {
    case .qcow2(let path), .raw(let path): path
    }
  }
}

/// How one disk is opened and treated.
package struct DeviceConfiguration: Sendable {
  /// What a discard does to the host.
  package enum Discard: String, Sendable, CaseIterable {
    /// Discarded clusters are given back to the host.
    case unmap
    /// They read zero and stay allocated.
    case ignore
  }

  /// What happens to a guest write that holds only zeroes.
  package enum DetectZeroes: String, Sendable, CaseIterable {
    /// It is written as any other.
    case off
    /// Its clusters become zero clusters and keep their space.
    case on
    /// Its clusters become zero clusters without space.
    case unmap
  }

  /// Whether images are locked against other programs.
  package enum Locking: Sendable {
    /// As QEMU locks them.
    case qemu
    /// Not at all (`-o nolock`).
    case none
  }

  /// What becomes of encrypted images, the active one and those below it.
  package enum EncryptedImages: Sendable {
    /// They are opened with this secret.
    case opened(with: SecretBytes)
    /// They are refused, for there is no secret.
    case refused
    /// Their tables can be looked at, their bytes cannot.
    case tablesOnly
  }

  /// The device's name, as `vda`.
  package var name: String
  /// The active image.
  package var image: ImageLocation
  /// Whether nothing may be written.
  package var isReadOnly: Bool
  /// Whether images are locked.
  package var locking: Locking
  /// How much memory the merged map of the backing layers may take.
  package var mapCacheBytes: Int
  /// The only directory in which backing files may lie, if there is such a rule.
  package var backingRoot: String?
  /// What a discard does to the host.
  package var discard: Discard
  /// Whether the disk may be made larger.
  package var isGrowable: Bool
  /// What happens to writes of zeroes.
  package var detectZeroes: DetectZeroes
  /// What becomes of encrypted images.
  package var encryptedImages: EncryptedImages

  /// Describes a disk; what is left out is the mount option's default.
  package init(
    name: String, image: ImageLocation, isReadOnly: Bool = false, locking: Locking = .qemu,
    mapCacheBytes: Int = 32 << 20, backingRoot: String? = nil, discard: Discard = .unmap,
    isGrowable: Bool = false, detectZeroes: DetectZeroes = .off,
    encryptedImages: EncryptedImages = .refused
  ) {
    self.name = name
    self.image = image
    self.isReadOnly = isReadOnly
    self.locking = locking
    self.mapCacheBytes = mapCacheBytes
    self.backingRoot = backingRoot
    self.discard = discard
    self.isGrowable = isGrowable
    self.detectZeroes = detectZeroes
    self.encryptedImages = encryptedImages
  }
}
