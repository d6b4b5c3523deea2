/// An entry of the snapshot directory: an internal snapshot. See "Snapshots" in qcow2.rst.
///
///      0  L1 table offset 8     12 id length 2      16 date, seconds 4    24 guest clock 8
///      8  L1 table size 4       14 name length 2    20 date, nanoseconds 4
///     32  VM state size 4       36 extra data size 4
///     40  extra data (VM state size 8, disk size 8, instruction count 8, unknown), id, name,
///         padding to 8 bytes
package struct SnapshotEntry: Sendable, Equatable {
  /// Where the snapshot's L1 table is; see ``checkTable(in:)``.
  package var l1TableOffset: UInt64
  /// The entries of the L1 table; see ``checkTable(in:)``.
  package var l1Size: Int
  /// The unique id, a decimal number as text.
  package var id: String
  /// The name that somebody gave it.
  package var name: String
  /// When it was made, in seconds since 1970.
  package var dateSeconds: UInt32
  /// The part of the date below a second.
  package var dateNanoseconds: UInt32
  /// How long the guest had been running, in nanoseconds.
  package var guestClockNanoseconds: UInt64
  /// The bytes of VM state that were saved with it, 0 for a disk snapshot.
  package var vmStateSize: UInt64
  /// The disk's size at that time; nil if the entry does not say, then as it is now.
  package var diskSize: UInt64?
  /// The instructions that the guest had executed; nil if the entry does not say.
  package var instructionCount: UInt64?
  /// True for a version 3 image's entry without the extra data that version 3 requires.
  ///
  /// QEMU opens such images; its check calls them incomplete.
  package var isIncomplete: Bool
  /// The bytes that the entry takes in the directory, with its padding.
  package var encodedByteCount: Int

  /// The bytes of an entry before its extra data.
  package static let fixedByteCount = 40
  /// The longest extra data that QEMU takes.
  package static let maximumExtraBytes = 1024
  /// The longest directory that QEMU takes, in bytes: no more needs to be read to parse one.
  package static let maximumDirectoryBytes = 64 << 20

  /// Reads `count` entries from the start of `bytes`, which may be longer than the directory.
  package static func parseDirectory(
    _ bytes: RawSpan, count: Int, version: Int
  ) throws(FormatError) -> [SnapshotEntry] {
    try check(
      "nb_snapshots", UInt64(max(count, 0)), in: 0...UInt64(ImageHeader.maximumSnapshotCount))
    var entries: [SnapshotEntry] = []
    var offset = 0
    for _ in 0..<max(count, 0) {
      let (entry, end) = try parse(bytes, at: offset, version: version)
      entries.append(entry)
      offset = (end + 7) & ~7
    }
    return entries
  }

  private static func parse(
    _ bytes: RawSpan, at offset: Int, version: Int
  ) throws(FormatError) -> (SnapshotEntry, end: Int) {
    let extraStart = offset + fixedByteCount
    try require(extraStart, of: bytes)
    let extraSize = UInt64(BigEndian.uint32(bytes, at: offset + 36))
    try check("snapshot extra data size", extraSize, in: 0...UInt64(maximumExtraBytes))
    let l1Size = UInt64(BigEndian.uint32(bytes, at: offset + 8))
    let idStart = extraStart + Int(extraSize)
    let nameStart = idStart + Int(BigEndian.uint16(bytes, at: offset + 12))
    let end = nameStart + Int(BigEndian.uint16(bytes, at: offset + 14))
    try require(end, of: bytes)
    // QEMU writes all ones where instructions are not counted.
    let instructionCount =
      extraSize >= 24 ? BigEndian.uint64(bytes, at: extraStart + 16) : UInt64.max
    let entry = SnapshotEntry(
      l1TableOffset: BigEndian.uint64(bytes, at: offset), l1Size: Int(l1Size),
      id: String(decoding: BigEndian.copy(bytes, idStart..<nameStart), as: UTF8.self),
      name: String(decoding: BigEndian.copy(bytes, nameStart..<end), as: UTF8.self),
      dateSeconds: BigEndian.uint32(bytes, at: offset + 16),
      dateNanoseconds: BigEndian.uint32(bytes, at: offset + 20),
      guestClockNanoseconds: BigEndian.uint64(bytes, at: offset + 24),
      vmStateSize: extraSize >= 8
        ? BigEndian.uint64(bytes, at: extraStart)
        : UInt64(BigEndian.uint32(bytes, at: offset + 32)),
      diskSize: extraSize >= 16 ? BigEndian.uint64(bytes, at: extraStart + 8) : nil,
      instructionCount: instructionCount == .max ? nil : instructionCount,
      isIncomplete: version >= 3 && extraSize < 16, encodedByteCount: ((end + 7) & ~7) - offset)
    return (entry, end)
  }

  private static func require(_ count: Int, of bytes: RawSpan) throws(FormatError) {
    guard count <= min(bytes.byteCount, maximumDirectoryBytes) else {
      throw .truncated(
        structure: "snapshot directory", needed: count,
        available: min(bytes.byteCount, maximumDirectoryBytes))
    }
  }

  /// Throws if the snapshot's L1 table cannot be where the entry says.
  package func checkTable(in geometry: Geometry) throws(FormatError) {
    try check(
      "snapshot L1 size", UInt64(l1Size), in: 0...UInt64(Geometry.maximumL1TableBytes / 8))
    try Qcow2Format.checkTable(
      "snapshot L1 table offset", at: l1TableOffset, byteCount: l1Size * 8,
      clusterSize: geometry.clusterSize)
  }
}
