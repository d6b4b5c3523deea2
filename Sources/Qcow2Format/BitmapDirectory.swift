// Persistent dirty bitmaps as the image names them: see "Bitmaps extension" and "Bitmap directory" in
// qcow2.rst.
//
//     header extension --> directory: one entry a bitmap --> table --> clusters of bits
//
// Everything is hostile. An entry that parses can be followed: its table lies at a cluster, and has
// as many entries as the disk needs unless the bitmap is marked as in use, that is, as not true.

/// What the bitmaps header extension says: where the directory is.
///
///      0  number of bitmaps 4    4  reserved 4    8  directory size 8    16  directory offset 8
package struct BitmapDirectoryPlace: Sendable, Equatable {
  /// How many bitmaps there are, at least one.
  package var count: Int
  /// The bytes of the directory.
  package var byteCount: Int
  /// Where the directory is; a multiple of the cluster size.
  package var offset: UInt64

  /// The most bitmaps that QEMU takes.
  package static let maximumCount = 65535
  /// The longest directory that QEMU takes, in bytes.
  package static let maximumByteCount = maximumCount * 1024

  /// Reads the extension's data, checking every field.
  package init(_ data: [UInt8], in geometry: Geometry) throws(FormatError) {
    try check("bitmaps extension length", UInt64(data.count), in: 24...24)
    let number = UInt64(BigEndian.uint32(data, at: 0))
    try check("nb_bitmaps", number, in: 1...UInt64(Self.maximumCount))
    try check("bitmaps extension reserved", UInt64(BigEndian.uint32(data, at: 4)), in: 0...0)
    let size = BigEndian.uint64(data, at: 8)
    try check("bitmap_directory_size", size, in: 24...UInt64(Self.maximumByteCount))
    offset = BigEndian.uint64(data, at: 16)
    try checkTable(
      "bitmap_directory_offset", at: offset, byteCount: Int(size),
      clusterSize: geometry.clusterSize)
    count = Int(number)
    byteCount = Int(size)
  }
}

extension ImageHeader {
  /// The autoclear bit that says that the bitmaps were kept by whoever wrote last; bit 0.
  package static let bitmapsFeature: UInt64 = 1 << 0
  /// The autoclear bit that says that the external data file is a raw image; bit 1.
  package static let rawDataFeature: UInt64 = 1 << 1

  /// Where the bitmap directory is; nil if there is none, or if its bitmaps are void since somebody
  /// wrote who did not know them.
  package func bitmapDirectory() throws(FormatError) -> BitmapDirectoryPlace? {
    guard autoclearFeatures & Self.bitmapsFeature != 0,
      let item = extensions.first(where: { $0.type == HeaderExtension.bitmapsType })
    else { return nil }
    return try BitmapDirectoryPlace(item.data, in: geometry)
  }
}

/// The flags of a directory entry.
package struct BitmapFlags: OptionSet, Sendable, Hashable {
  /// The field as it is on disk.
  package var rawValue: UInt32

  /// The flags with these bits.
  package init(rawValue: UInt32) { self.rawValue = rawValue }

  /// The bitmap was not stored after the last writes: what it says is not to be believed.
  package static let inUse = BitmapFlags(rawValue: 1 << 0)
  /// Every change of the disk has to be noted.
  package static let auto = BitmapFlags(rawValue: 1 << 1)
  /// Who does not know the extra data may use the bitmap all the same.
  package static let extraDataCompatible = BitmapFlags(rawValue: 1 << 2)
}

/// An entry of the bitmap directory.
///
///      0  table offset 8    8  table size 4    12  flags 4    16  type 1    17  granularity bits 1
///     18  name length 2    20  extra data length 4    24  extra data, name, padding to 8 bytes
package struct BitmapEntry: Sendable, Equatable {
  /// Where the entry begins in its directory, a multiple of eight.
  package var position: Int
  /// Where the table is; a multiple of the cluster size.
  package var tableOffset: UInt64
  /// How many entries the table has.
  package var tableSize: Int
  /// What holds for the bitmap.
  package var flags: BitmapFlags
  /// The base-2 logarithm of the bytes of the disk that a bit stands for.
  package var granularityBits: Int
  /// What the bitmap is called.
  package var name: String
  /// The length of extra data that this module does not know.
  package var extraByteCount: Int

  /// The bytes of an entry before its extra data.
  package static let fixedByteCount = 24
  /// The granularities that QEMU takes, as logarithms.
  package static let granularityBitsRange = 9...31
  /// The longest name that QEMU takes, in bytes.
  package static let maximumNameBytes = 1023
  /// The most bytes of bits that QEMU takes for one bitmap.
  package static let maximumBitBytes = 512 << 20

  /// True if the bitmap may be read and written by who does not know its extra data.
  package var isUsable: Bool { extraByteCount == 0 || flags.contains(.extraDataCompatible) }

  /// Bytes 8 to 15 of the entry as a big-endian number: table size and flags, which share a sector.
  package var sizeAndFlags: UInt64 { UInt64(tableSize) << 32 | UInt64(flags.rawValue) }

  /// How many bits a bitmap has for a disk of `size` bytes.
  package static func bitCount(for size: UInt64, granularityBits: Int) -> UInt64 {
    let shift = UInt64(granularityBits)
    return size >> shift + (size & ((1 << shift) - 1) == 0 ? 0 : 1)
  }

  /// How many table entries a bitmap has for a disk of `size` bytes.
  package static func tableSize(
    for size: UInt64, granularityBits: Int, clusterSize: Int
  ) -> UInt64 {
    let bits = bitCount(for: size, granularityBits: granularityBits)
    let perEntry = UInt64(clusterSize) * 8
    return bits / perEntry + (bits.isMultiple(of: perEntry) ? 0 : 1)
  }

  /// Reads the entries of a directory, which `bytes` are the whole of.
  package static func parseDirectory(
    _ bytes: RawSpan, count: Int, in geometry: Geometry
  ) throws(FormatError) -> [BitmapEntry] {
    try check(
      "nb_bitmaps", UInt64(max(count, 0)), in: 1...UInt64(BitmapDirectoryPlace.maximumCount))
    var entries: [BitmapEntry] = []
    var position = 0
    for index in 0..<count {
      let (entry, end) = try parse(bytes, at: position, index: index, geometry)
      entries.append(entry)
      position = end
    }
    // More than the entries, however little, means that the count is not to be trusted either.
    let end = UInt64(position)
    try check("bitmap_directory_size", UInt64(bytes.byteCount), in: end...end)
    return entries
  }

  private static func parse(
    _ bytes: RawSpan, at position: Int, index: Int, _ geometry: Geometry
  ) throws(FormatError) -> (BitmapEntry, end: Int) {
    func require(_ end: Int) throws(FormatError) {
      guard end <= bytes.byteCount else {
        throw .truncated(structure: "bitmap directory", needed: end, available: bytes.byteCount)
      }
    }
    func field(_ name: String) -> String { "\(name) of bitmap \(index)" }
    try require(position + fixedByteCount)
    let nameSize = UInt64(BigEndian.uint16(bytes, at: position + 18))
    try check(field("name_size"), nameSize, in: 1...UInt64(maximumNameBytes))
    let extraByteCount = Int(BigEndian.uint32(bytes, at: position + 20))
    let nameStart = position + fixedByteCount + extraByteCount
    let end = (nameStart + Int(nameSize) + 7) & ~7
    try require(end)
    let flags = BitmapFlags(rawValue: BigEndian.uint32(bytes, at: position + 12))
    try check(field("flags"), UInt64(flags.rawValue), in: 0...7)
    try check(field("type"), UInt64(BigEndian.uint8(bytes, at: position + 16)), in: 1...1)
    let granularityBits = Int(BigEndian.uint8(bytes, at: position + 17))
    try check(
      field("granularity_bits"), UInt64(granularityBits),
      in: UInt64(granularityBitsRange.lowerBound)...UInt64(granularityBitsRange.upperBound))
    let tableSize = UInt64(BigEndian.uint32(bytes, at: position + 8))
    let largest = UInt64(maximumBitBytes >> geometry.clusterBits)
    try check(field("bitmap_table_size"), tableSize, in: 1...largest)
    if !flags.contains(.inUse) {
      // A bitmap in use may have been left behind by a change of the disk's size.
      let needed = Self.tableSize(
        for: geometry.virtualSize, granularityBits: granularityBits,
        clusterSize: geometry.clusterSize)
      try check(field("bitmap_table_size"), tableSize, in: needed...needed)
    }
    let tableOffset = BigEndian.uint64(bytes, at: position)
    try checkTable(
      field("bitmap_table_offset"), at: tableOffset, byteCount: Int(tableSize) * 8,
      clusterSize: geometry.clusterSize)
    let name = BigEndian.copy(bytes, nameStart..<nameStart + Int(nameSize))
    let entry = BitmapEntry(
      position: position, tableOffset: tableOffset, tableSize: Int(tableSize), flags: flags,
      granularityBits: granularityBits, name: String(decoding: name, as: UTF8.self),
      extraByteCount: extraByteCount)
    return (entry, end)
  }
}

/// An entry of a bitmap's table: a cluster of its bits. See "Bitmap table" in qcow2.rst.
///
///     bit  0       without an offset: all bits are ones, not zeroes
///          1 - 8   reserved, 0
///          9 - 55  offset of the cluster, 0 if there is none
///         56 - 63  reserved, 0
package struct BitmapTableEntry: RawRepresentable, Hashable, Sendable {
  /// The entry as it is on disk.
  package var rawValue: UInt64

  /// The entry with these bits, whatever they mean.
  package init(rawValue: UInt64) { self.rawValue = rawValue }

  /// The entry for bits at `offset`, a multiple of the cluster size.
  package init(offset: UInt64) {
    precondition(offset & ~EntryBits.offsetMask == 0, "no cluster of bits can be there")
    rawValue = offset
  }

  /// No bit is set.
  package static let zeroes = BitmapTableEntry(rawValue: 0)
  /// Every bit is set.
  package static let ones = BitmapTableEntry(rawValue: 1)

  /// Where the bits are, nil if the entry itself says what they are; throws if none can be there.
  package func cluster(in geometry: Geometry) throws(FormatError) -> UInt64? {
    let offset = rawValue & EntryBits.offsetMask
    let isFlagged = offset == 0 && rawValue == Self.ones.rawValue
    guard rawValue == offset || isFlagged else {
      throw .corruptEntry(table: "bitmap table", entry: rawValue, reason: "reserved bits are set")
    }
    guard offset != 0 else { return nil }
    guard geometry.offsetInCluster(offset) == 0 else {
      throw .corruptEntry(table: "bitmap table", entry: rawValue, reason: "it is not aligned")
    }
    return offset
  }
}
