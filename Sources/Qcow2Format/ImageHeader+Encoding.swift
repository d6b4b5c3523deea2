extension ImageHeader {
  /// The whole first cluster in QEMU's layout: fields, extensions, end marker, backing file name.
  ///
  /// For a new image. A header that is on disk is changed by ``updatingFields(of:)`` or
  /// ``backingRewrite(firstCluster:backingFile:backingFormat:)``, which leave in place what an
  /// interrupted write must not lose.
  package func encoded() throws(FormatError) -> [UInt8] {
    let name = try ImageHeader.backingNameBytes(backingFile)
    let nameOffset = try ImageHeader.extensionsEnd(headerLength, extensions)
    let needed = nameOffset + name.count
    guard needed <= geometry.clusterSize else {
      throw .headerFull(needed: needed, available: geometry.clusterSize)
    }
    var bytes = [UInt8](repeating: 0, count: geometry.clusterSize)
    encodeFields(into: &bytes)
    if geometry.version >= 3, headerLength > ImageHeader.version3MinimumLength {
      bytes[104] = compressionType.rawValue
      let tail = ImageHeader.version3Length..<headerLength
      bytes.replaceSubrange(tail, with: unknownHeaderBytes.prefix(tail.count))
    }
    ImageHeader.encodeExtensions(extensions, into: &bytes, at: headerLength)
    ImageHeader.encodeBackingName(name, into: &bytes, at: nameOffset)
    return bytes
  }

  /// The first sector with this header's fixed fields, everything else as it is in `firstSector`.
  ///
  /// For tables that moved and feature bits. It is one sector, so the change is atomic. The
  /// backing reference, the extensions and header bytes from 104 on are not touched.
  package func updatingFields(of firstSector: [UInt8]) -> [UInt8] {
    precondition(firstSector.count == 512, "a header update is one sector")
    var bytes = firstSector
    encodeFields(into: &bytes)
    return bytes
  }

  /// Writes all fixed fields but the backing reference and the compression type.
  private func encodeFields(into bytes: inout [UInt8]) {
    BigEndian.store(ImageHeader.magic, in: &bytes, at: 0)
    BigEndian.store(UInt32(geometry.version), in: &bytes, at: 4)
    BigEndian.store(UInt32(geometry.clusterBits), in: &bytes, at: 20)
    BigEndian.store(geometry.virtualSize, in: &bytes, at: 24)
    BigEndian.store(encryption.rawValue, in: &bytes, at: 32)
    BigEndian.store(UInt32(l1Size), in: &bytes, at: 36)
    BigEndian.store(l1TableOffset, in: &bytes, at: 40)
    BigEndian.store(refcountTableOffset, in: &bytes, at: 48)
    BigEndian.store(UInt32(refcountTableClusters), in: &bytes, at: 56)
    BigEndian.store(UInt32(snapshotCount), in: &bytes, at: 60)
    BigEndian.store(snapshotsOffset, in: &bytes, at: 64)
    guard geometry.version >= 3 else { return }
    BigEndian.store(incompatibleFeatures, in: &bytes, at: 72)
    BigEndian.store(compatibleFeatures, in: &bytes, at: 80)
    BigEndian.store(autoclearFeatures, in: &bytes, at: 88)
    BigEndian.store(UInt32(geometry.refcountOrder), in: &bytes, at: 96)
    BigEndian.store(UInt32(headerLength), in: &bytes, at: 100)
  }

  // MARK: - Parts that a rewrite of the backing reference shares

  /// The name as bytes, empty for none; throws if QEMU could not read it back.
  static func backingNameBytes(_ name: String?) throws(FormatError) -> [UInt8] {
    let bytes = Array((name ?? "").utf8)
    try check(
      "backing file name length", UInt64(bytes.count), in: 0...UInt64(maximumBackingNameBytes))
    guard !bytes.contains(0) else { throw .nameNotText(field: "backing file name") }
    return bytes
  }

  /// The first byte after `extensions` and the end marker, if they start at `start`.
  static func extensionsEnd(
    _ start: Int, _ extensions: [HeaderExtension]
  ) throws(FormatError) -> Int {
    for item in extensions where item.type == HeaderExtension.backingFormatType {
      try check(
        "backing format length", UInt64(item.data.count),
        in: 0...UInt64(maximumBackingFormatBytes))
    }
    return extensions.reduce(start + 8) { $0 + $1.encodedByteCount }
  }

  /// Writes `extensions` and the end marker from `start` on, where the bytes are zero.
  static func encodeExtensions(
    _ extensions: [HeaderExtension], into bytes: inout [UInt8], at start: Int
  ) {
    var offset = start
    for item in extensions {
      item.encode(into: &bytes, at: offset)
      offset += item.encodedByteCount
    }
  }

  /// Writes the name and the fields that lead to it; an empty name means no backing file.
  static func encodeBackingName(_ name: [UInt8], into bytes: inout [UInt8], at offset: Int) {
    BigEndian.store(UInt64(name.isEmpty ? 0 : offset), in: &bytes, at: 8)
    BigEndian.store(UInt32(name.count), in: &bytes, at: 16)
    bytes.replaceSubrange(offset..<offset + name.count, with: name)
  }
}
