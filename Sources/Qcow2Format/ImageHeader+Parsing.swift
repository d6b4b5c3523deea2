// Everything here is hostile input. Order of the checks: what tells how many bytes may be looked
// at comes first (version, cluster bits, header length), then the fields, then the extensions,
// which end at the backing file name, then the name. No field is used before it is checked.

/// Which bytes of the first cluster a parsed header depends on, besides the fixed fields.
struct HeaderLayout: Equatable {
  /// The first byte after the extensions and their end marker.
  var extensionsEnd: Int
  /// The bytes of the backing file name, empty if there is none.
  var backingName: Range<Int>
}

extension ImageHeader {
  /// How many bytes from the start of the file ``parse(_:)`` needs: the first cluster.
  ///
  /// Nil if `prefix`, at least 24 bytes, is no qcow2 image. A cluster size that does not exist
  /// gives the smallest one: parsing says then what is wrong.
  package static func clusterSizeNeeded(prefix: RawSpan) -> Int? {
    guard prefix.byteCount >= 24, BigEndian.uint32(prefix, at: 0) == magic else { return nil }
    let bits = BigEndian.uint32(prefix, at: 20)
    return (9...21).contains(bits) ? 1 << Int(bits) : 512
  }

  /// Reads a header, checking every field; `firstCluster` may be longer than the cluster.
  package static func parse(_ firstCluster: RawSpan) throws(FormatError) -> ImageHeader {
    try parseWithLayout(firstCluster).header
  }

  static func parseWithLayout(
    _ bytes: RawSpan
  ) throws(FormatError) -> (header: ImageHeader, layout: HeaderLayout) {
    var header = try parseFields(bytes)
    let clusterSize = header.geometry.clusterSize
    let name = try backingNameRange(
      bytes, headerLength: header.headerLength, clusterSize: clusterSize)
    let end = try header.parseExtensions(bytes, upTo: name?.lowerBound ?? clusterSize)
    try header.checkEncryption()
    if let name {
      let text = BigEndian.copy(bytes, name).prefix { $0 != 0 }
      guard let decoded = String(validating: text, as: UTF8.self) else {
        throw .nameNotText(field: "backing file name")
      }
      header.backingFile = decoded.isEmpty ? nil : decoded
    }
    return (header, HeaderLayout(extensionsEnd: end, backingName: name ?? end..<end))
  }

  private static func parseFields(_ bytes: RawSpan) throws(FormatError) -> ImageHeader {
    guard bytes.byteCount >= 4, BigEndian.uint32(bytes, at: 0) == magic else { throw .notQcow2 }
    try require(version2Length, of: bytes)
    let version = BigEndian.uint32(bytes, at: 4)
    guard version == 2 || version == 3 else { throw .unsupportedVersion(version) }
    let isVersion3 = version == 3
    try require(isVersion3 ? version3MinimumLength : version2Length, of: bytes)
    let incompatible = isVersion3 ? BigEndian.uint64(bytes, at: 72) : 0
    let geometry = try Geometry(
      version: Int(version), clusterBits: Int(BigEndian.uint32(bytes, at: 20)),
      refcountOrder: isVersion3 ? Int(BigEndian.uint32(bytes, at: 96)) : 4,
      virtualSize: BigEndian.uint64(bytes, at: 24),
      hasExtendedL2: incompatible & IncompatibleFeature.extendedL2 != 0,
      hasDataFile: incompatible & IncompatibleFeature.externalDataFile != 0)
    try require(geometry.clusterSize, of: bytes)
    var header = ImageHeader(
      geometry: geometry, l1TableOffset: BigEndian.uint64(bytes, at: 40),
      l1Size: Int(BigEndian.uint32(bytes, at: 36)),
      refcountTableOffset: BigEndian.uint64(bytes, at: 48),
      refcountTableClusters: Int(BigEndian.uint32(bytes, at: 56)),
      snapshotCount: Int(BigEndian.uint32(bytes, at: 60)),
      snapshotsOffset: BigEndian.uint64(bytes, at: 64), headerLength: version2Length)
    try header.checkTables()
    let cryptMethod = BigEndian.uint32(bytes, at: 32)
    guard let encryption = EncryptionMethod(rawValue: cryptMethod) else {
      throw .fieldOutOfRange(field: "crypt_method", value: UInt64(cryptMethod), allowed: 0...2)
    }
    header.encryption = encryption
    if isVersion3 { try header.parseVersion3Fields(bytes) }
    return header
  }

  private static func require(_ count: Int, of bytes: RawSpan) throws(FormatError) {
    guard bytes.byteCount >= count else {
      throw .truncated(structure: "header", needed: count, available: bytes.byteCount)
    }
  }

  private func checkTables() throws(FormatError) {
    let clusterSize = geometry.clusterSize
    try check(
      "l1_size", UInt64(l1Size),
      in: UInt64(geometry.l1EntriesNeeded)...UInt64(Geometry.maximumL1TableBytes / 8))
    try checkTable(
      "l1_table_offset", at: l1TableOffset, byteCount: l1Size * 8, clusterSize: clusterSize)
    try check(
      "refcount_table_clusters", UInt64(refcountTableClusters),
      in: 1...UInt64(Geometry.maximumRefcountTableBytes / clusterSize))
    try checkTable(
      "refcount_table_offset", at: refcountTableOffset,
      byteCount: refcountTableClusters * clusterSize, clusterSize: clusterSize)
    try check(
      "nb_snapshots", UInt64(snapshotCount), in: 0...UInt64(ImageHeader.maximumSnapshotCount))
    try checkTable(
      "snapshots_offset", at: snapshotsOffset,
      byteCount: snapshotCount * SnapshotEntry.fixedByteCount, clusterSize: clusterSize)
  }

  private mutating func parseVersion3Fields(_ bytes: RawSpan) throws(FormatError) {
    incompatibleFeatures = BigEndian.uint64(bytes, at: 72)
    compatibleFeatures = BigEndian.uint64(bytes, at: 80)
    autoclearFeatures = BigEndian.uint64(bytes, at: 88)
    let length = UInt64(BigEndian.uint32(bytes, at: 100))
    try check("header_length", length, in: 104...UInt64(geometry.clusterSize))
    try check("header_length", length, multipleOf: 8)
    headerLength = Int(length)
    if headerLength > ImageHeader.version3Length {
      unknownHeaderBytes = BigEndian.copy(bytes, ImageHeader.version3Length..<headerLength)
    }
    let hasType = headerLength > ImageHeader.version3MinimumLength
    let type = hasType ? BigEndian.uint8(bytes, at: 104) : 0
    let featureBit = incompatibleFeatures & IncompatibleFeature.compressionType != 0
    guard let method = CompressionMethod(rawValue: type) else {
      throw .unsupportedFeature(name: "compression type \(type)")
    }
    guard (method != .deflate) == featureBit else {
      throw .compressionTypeMismatch(type: type, featureBit: featureBit)
    }
    compressionType = method
  }

  private static func backingNameRange(
    _ bytes: RawSpan, headerLength: Int, clusterSize: Int
  ) throws(FormatError) -> Range<Int>? {
    let offset = BigEndian.uint64(bytes, at: 8)
    guard offset != 0 else { return nil }
    try check("backing_file_offset", offset, in: UInt64(headerLength)...UInt64(clusterSize))
    let room = UInt64(clusterSize) - offset
    let size = UInt64(BigEndian.uint32(bytes, at: 16))
    try check("backing_file_size", size, in: 0...min(UInt64(maximumBackingNameBytes), room))
    return Int(offset)..<Int(offset + size)
  }

  /// Reads the extensions and returns the first byte after them and their end marker.
  private mutating func parseExtensions(_ bytes: RawSpan, upTo end: Int) throws(FormatError) -> Int
  {
    var offset = headerLength
    while offset < end {
      guard end - offset >= 8 else {
        throw .truncated(structure: "header extension", needed: 8, available: end - offset)
      }
      let type = BigEndian.uint32(bytes, at: offset)
      let length = BigEndian.uint32(bytes, at: offset + 4)
      offset += 8
      guard length <= end - offset else {
        throw .extensionOverrun(type: type, length: length, available: end - offset)
      }
      if type == HeaderExtension.endType { return offset }
      let item = HeaderExtension(
        type: type, data: BigEndian.copy(bytes, offset..<offset + Int(length)))
      if type == HeaderExtension.backingFormatType { try ImageHeader.checkFormat(item.data) }
      if type == HeaderExtension.dataFileType,
        String(validating: item.data, as: UTF8.self) == nil
      {
        throw .nameNotText(field: "data file name")
      }
      extensions.append(item)
      offset += item.encodedByteCount - 8
    }
    return min(offset, end)
  }

  private func checkEncryption() throws(FormatError) {
    let items = extensions.filter { $0.type == HeaderExtension.encryptionType }
    guard encryption == .luks else {
      if items.isEmpty { return }
      throw .encryptionHeader(reason: "it is there, but crypt_method is \(encryption.rawValue)")
    }
    guard items.count == 1, items[0].data.count == FileArea.encodedByteCount,
      let area = encryptionHeader
    else {
      throw .encryptionHeader(
        reason: "an encrypted image has one, of \(FileArea.encodedByteCount) bytes")
    }
    try check(
      "encryption header length", area.byteCount,
      in: 1...ImageHeader.maximumEncryptionHeaderBytes)
    try checkTable(
      "encryption header offset", at: area.offset, byteCount: Int(area.byteCount),
      clusterSize: geometry.clusterSize)
  }

  private static func checkFormat(_ data: [UInt8]) throws(FormatError) {
    try check(
      "backing format length", UInt64(data.count), in: 0...UInt64(maximumBackingFormatBytes))
    guard String(validating: data, as: UTF8.self) != nil else {
      throw .nameNotText(field: "backing format")
    }
  }
}
