package import BlockIO
package import Encryption
internal import HostSystem
internal import Qcow2Format

/// What the header of an image says about it, for people; also of images that cannot be mounted.
package struct ImageDescription: Sendable, Equatable {
  /// What only qcow2 has to say.
  package struct Qcow2: Sendable, Equatable {
    /// 2 or 3.
    package var version: Int
    /// The width of a refcount.
    package var refcountBits: Int
    /// How compressed clusters are compressed, as QEMU calls it.
    package var compression: String
    /// Whether a writer may let refcounts lag.
    package var hasLazyRefcounts: Bool
    /// Whether L2 entries tell of subclusters.
    package var hasExtendedL2: Bool
    /// Whether the image is marked corrupt.
    package var isCorrupt: Bool
    /// Whether the image is marked as not closed.
    package var isDirty: Bool
    /// The internal snapshots, in the order of the directory.
    package var snapshots: [InternalSnapshot]
    /// The persistent bitmaps, in the order of the directory.
    package var bitmaps: [PersistentBitmap]
    /// The file with the bytes of the guest as the header names it, nil if that is the image itself.
    package var dataFile: String?
    /// Whether the data file can be used as a raw image.
    package var isDataFileRaw: Bool
    /// How the image is encrypted with LUKS, nil if it is not.
    package var luks: LUKSHeader?
    /// Features that keep the image from being mounted.
    package var unsupportedFeatures: [String]
  }

  /// The path that the image was opened by.
  package var path: String
  /// The size of the disk that the image shows.
  package var virtualSize: UInt64
  /// What the file takes on the host.
  package var allocatedBytes: UInt64
  /// The unit of allocation, nil for a raw image.
  package var clusterSize: Int?
  /// The image below, as the header names it.
  package var backing: BackingReference?
  /// What the header of a qcow2 image says, nil for a raw one.
  package var qcow2: Qcow2?

  /// `qcow2` or `raw`.
  package var formatName: String { qcow2 == nil ? "raw" : "qcow2" }

  /// The bytes of the disk are encrypted, in whatever way.
  package private(set) var isEncrypted = false

  /// Reads the header of a file; one that does not begin as qcow2 does is described as raw.
  package init(of storage: any BlockStorage) throws(ImageError) {
    path = storage.path
    allocatedBytes = try onStorage { () throws(StorageError) in try storage.allocatedBytes() }
    guard try Qcow2Image.isQcow2(storage) else {
      virtualSize = try onStorage { () throws(StorageError) in try storage.size() }
      return
    }
    let header = try ImageHeader.read(from: storage)
    isEncrypted = header.encryption != .none
    virtualSize = header.geometry.virtualSize
    clusterSize = header.geometry.clusterSize
    backing = header.backingFile.map {
      BackingReference(name: $0, format: header.backingFormat)
    }
    var unsupported = header.unsupportedFeatures()
    var luks: LUKSHeader?
    if header.encryption == .luks {
      do { luks = try Qcow2Image.encryptionHeader(of: storage).header } catch {
        // The rest can be told all the same.
        unsupported.append("\(error)")
      }
    }
    var bitmaps: [PersistentBitmap] = []
    do {
      bitmaps =
        try BitmapDirectory(of: header, in: storage)?.entries.map { PersistentBitmap($0) } ?? []
    } catch {
      // A writer goes on without bitmaps that break the format; a check says what is wrong.
      guard case .format = error else { throw error }
    }
    qcow2 = Qcow2(
      version: header.geometry.version, refcountBits: 1 << header.geometry.refcountOrder,
      compression: header.compressionType == .zstd ? "zstd" : "zlib",
      hasLazyRefcounts: header.compatibleFeatures & ImageHeader.lazyRefcountsFeature != 0,
      hasExtendedL2: header.geometry.hasExtendedL2,
      isCorrupt: header.isCorrupt, isDirty: header.isDirty,
      snapshots: try header.snapshots(in: storage).map { InternalSnapshot($0) },
      bitmaps: bitmaps,
      dataFile: header.geometry.hasDataFile ? header.dataFile ?? "" : nil,
      isDataFileRaw: header.isDataFileRaw,
      luks: luks,
      unsupportedFeatures: unsupported)
  }
}
