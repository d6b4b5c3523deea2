/// The header of a qcow2 image with its extensions and backing reference: everything that lives in
/// the first cluster.
///
/// See "Header" in qcow2.rst. A header made by ``parse(_:)`` is in range in every field; what it
/// may still ask for and chainfs cannot give is told by ``unsupportedFeatures()``.
package struct ImageHeader: Sendable, Equatable {
  /// Version, cluster and refcount sizes, size of the disk.
  package var geometry: Geometry
  /// Where the active L1 table is; a multiple of the cluster size.
  package var l1TableOffset: UInt64
  /// The entries of the L1 table, at least `geometry.l1EntriesNeeded`.
  package var l1Size: Int
  /// Where the refcount table is; a multiple of the cluster size.
  package var refcountTableOffset: UInt64
  /// The clusters of the refcount table, at least one.
  package var refcountTableClusters: Int
  /// The number of internal snapshots.
  package var snapshotCount = 0
  /// Where the snapshot directory is; a multiple of the cluster size.
  package var snapshotsOffset: UInt64 = 0
  /// How guest data is encrypted.
  package var encryption = EncryptionMethod.none
  /// Bits that a reader must know. Always 0 in version 2.
  package var incompatibleFeatures: UInt64 = 0
  /// Bits that may be ignored. Always 0 in version 2.
  package var compatibleFeatures: UInt64 = 0
  /// Bits that a writer clears unless it knows them. Always 0 in version 2.
  package var autoclearFeatures: UInt64 = 0
  /// How compressed clusters are compressed.
  package var compressionType = CompressionMethod.deflate
  /// The header's own length: 72 in version 2, 104 or more in version 3.
  package var headerLength: Int
  /// Header bytes from 112 to `headerLength`, which a later version of the format defines.
  package var unknownHeaderBytes: [UInt8] = []
  /// All extensions in their order, known and unknown, without the end marker.
  package var extensions: [HeaderExtension] = []
  /// The backing file as the header names it; nil if there is none.
  package var backingFile: String?

  /// The first bytes of every qcow2 image, as a big-endian number.
  package static let magic: UInt32 = 0x5146_49fb
  /// The longest backing file name that QEMU takes, in bytes.
  package static let maximumBackingNameBytes = 1023
  /// The longest backing format name that QEMU takes, in bytes.
  package static let maximumBackingFormatBytes = 15
  /// The most internal snapshots that QEMU takes.
  package static let maximumSnapshotCount = 65536
  /// The longest LUKS header that is read, key slots and all; version 1 has no use for more.
  package static let maximumEncryptionHeaderBytes: UInt64 = 64 << 20
  /// The length of a version 2 header.
  static let version2Length = 72
  /// The length of the shortest version 3 header, up to the compression type.
  static let version3MinimumLength = 104
  /// The length of a version 3 header with everything this module knows.
  static let version3Length = 112
}

/// How guest data is encrypted ("crypt_method").
package enum EncryptionMethod: UInt32, Sendable {
  /// Not at all.
  case none = 0
  /// QEMU's old AES-CBC.
  case aes = 1
  /// LUKS.
  case luks = 2
}

/// A run of bytes of the image file.
package struct FileArea: Sendable, Equatable {
  /// Where it begins.
  package var offset: UInt64
  /// How long it is.
  package var byteCount: UInt64

  /// Names a run of bytes.
  package init(offset: UInt64, byteCount: UInt64) {
    self.offset = offset
    self.byteCount = byteCount
  }

  /// Offset and length in a header extension.
  static let encodedByteCount = 16
}

/// How compressed clusters are compressed ("compression_type").
package enum CompressionMethod: UInt8, Sendable {
  /// A raw deflate stream.
  case deflate = 0
  /// Zstandard frames.
  case zstd = 1
}

extension ImageHeader {
  /// What a set bit of `incompatibleFeatures` means.
  package enum IncompatibleFeature {
    /// Refcounts may be wrong; bit 0.
    package static let dirty: UInt64 = 1 << 0
    /// Some metadata is known to be wrong; bit 1.
    package static let corrupt: UInt64 = 1 << 1
    /// Guest data is in another file; bit 2.
    package static let externalDataFile: UInt64 = 1 << 2
    /// The compression type is not deflate; bit 3.
    package static let compressionType: UInt64 = 1 << 3
    /// L2 entries have 16 bytes; bit 4.
    package static let extendedL2: UInt64 = 1 << 4
    static let known = dirty | corrupt | externalDataFile | compressionType | extendedL2
  }

  /// The bit of `compatibleFeatures` that lets a writer postpone refcount updates.
  package static let lazyRefcountsFeature: UInt64 = 1

  /// True if the external data file reads as the disk does.
  package var isDataFileRaw: Bool {
    geometry.hasDataFile && autoclearFeatures & Self.rawDataFeature != 0
  }

  /// Where the incompatible features are in the header, eight bytes in the first sector.
  package static let incompatibleFeaturesOffset: UInt64 = 72

  /// True if refcounts may be wrong: a writer has to check them first.
  package var isDirty: Bool { incompatibleFeatures & IncompatibleFeature.dirty != 0 }

  /// True if metadata is known to be wrong: nobody may write.
  package var isCorrupt: Bool { incompatibleFeatures & IncompatibleFeature.corrupt != 0 }

  /// The rows of the feature name table, empty if there is none.
  package var featureNames: [FeatureName] {
    extensions.filter { $0.type == HeaderExtension.featureNamesType }
      .flatMap { FeatureName.rows(of: $0.data) }
  }

  /// The backing file's format as the header names it.
  ///
  /// It may be there without a backing file, where it means nothing; a blank one is none. Setting
  /// it changes the extension where it stands, or adds one before all others as QEMU does.
  package var backingFormat: String? {
    get {
      let last = extensions.last { $0.type == HeaderExtension.backingFormatType }
      guard let data = last?.data else { return nil }
      let name = String(validating: data.prefix { $0 != 0 }, as: UTF8.self)
      return name == "" ? nil : name
    }
    set {
      let isFormat = { (item: HeaderExtension) in item.type == HeaderExtension.backingFormatType }
      let place = extensions.firstIndex(where: isFormat) ?? 0
      extensions.removeAll(where: isFormat)
      guard let newValue else { return }
      extensions.insert(
        HeaderExtension(type: HeaderExtension.backingFormatType, data: Array(newValue.utf8)),
        at: place)
    }
  }

  /// The external data file as the header names it, not resolved; nil if it names none.
  package var dataFile: String? {
    let last = extensions.last { $0.type == HeaderExtension.dataFileType }
    let name = last.flatMap { String(validating: $0.data.prefix { $0 != 0 }, as: UTF8.self) }
    return name == "" ? nil : name
  }

  /// Where the LUKS header is, nil unless the image is encrypted with LUKS.
  ///
  /// Its clusters are in use as those of a table are, and hold no guest data.
  package var encryptionHeader: FileArea? {
    guard encryption == .luks,
      let data = extensions.last(where: { $0.type == HeaderExtension.encryptionType })?.data,
      data.count == FileArea.encodedByteCount
    else { return nil }
    return FileArea(
      offset: BigEndian.uint64(data, at: 0), byteCount: BigEndian.uint64(data, at: 8))
  }

  /// What the image asks for and chainfs cannot do: such an image must not be opened at all.
  ///
  /// Names as a user knows them, empty if all is well. An unknown bit is called what the image's
  /// own feature name table calls it.
  package func unsupportedFeatures() -> [String] {
    var names: [String] = []
    if encryption == .aes { names.append("AES encryption") }
    names += unknownFeatures()
    return names
  }

  /// The incompatible features that nobody here knows: not even a check can follow such an image.
  ///
  /// A bit is called what the image's own feature name table calls it.
  package func unknownFeatures() -> [String] {
    let unknown = incompatibleFeatures & ~IncompatibleFeature.known
    let table = featureNames
    var names: [String] = []
    for bit in 0..<64 where unknown & (1 << UInt64(bit)) != 0 {
      let row = table.first { $0.kind == .incompatible && $0.bit == bit && !$0.name.isEmpty }
      names.append(row?.name ?? "unknown incompatible feature bit \(bit)")
    }
    return names
  }
}
