/// An entry of the L1 table: where an L2 table is. See "Cluster mapping" in qcow2.rst.
///
///     bit  0 - 8   reserved, 0
///          9 - 55  offset of the L2 table, 0 if there is none
///         56 - 62  reserved, 0
///         63       the table's refcount is one (to be trusted in the active L1 table only)
package struct L1Entry: RawRepresentable, Hashable, Sendable {
  /// The entry as it is on disk.
  package var rawValue: UInt64

  /// The entry with these bits, whatever they mean.
  package init(rawValue: UInt64) { self.rawValue = rawValue }

  /// The entry for a table at `tableOffset`, a multiple of the cluster size.
  package init(tableOffset: UInt64, copied: Bool) {
    precondition(tableOffset & ~EntryBits.offsetMask == 0, "no L2 table can be there")
    rawValue = tableOffset | (copied ? EntryBits.copied : 0)
  }

  /// No L2 table: nothing in its range is allocated.
  package static let empty = L1Entry(rawValue: 0)

  /// Bits 9 to 55, not checked for alignment; 0 if there is no table.
  package var tableOffset: UInt64 { rawValue & EntryBits.offsetMask }
  /// True if nobody else uses the table, so that it may be changed in place.
  package var isCopied: Bool { rawValue & EntryBits.copied != 0 }
  /// True if a bit is set that no writer sets.
  package var hasReservedBits: Bool {
    rawValue & ~(EntryBits.offsetMask | EntryBits.copied) != 0
  }

  /// The entry as a reader that ignores reserved bits takes it.
  package var withoutReservedBits: L1Entry {
    L1Entry(rawValue: rawValue & (EntryBits.offsetMask | EntryBits.copied))
  }

  /// Where the table is, nil if there is none; throws if no table can be there.
  package func table(in geometry: Geometry) throws(FormatError) -> UInt64? {
    guard !hasReservedBits else {
      throw .corruptEntry(table: "L1", entry: rawValue, reason: "reserved bits are set")
    }
    guard tableOffset != 0 else { return nil }
    guard geometry.offsetInCluster(tableOffset) == 0 else {
      throw .corruptEntry(table: "L1", entry: rawValue, reason: "the L2 table is not aligned")
    }
    return tableOffset
  }
}

/// An entry of the refcount table: where a refcount block is. See "Host cluster management".
///
///     bit  0 - 8   reserved, 0
///          9 - 63  offset of the refcount block, 0 if all its refcounts are 0
package struct RefcountTableEntry: RawRepresentable, Hashable, Sendable {
  /// The entry as it is on disk.
  package var rawValue: UInt64

  /// The entry with these bits, whatever they mean.
  package init(rawValue: UInt64) { self.rawValue = rawValue }

  /// The entry for a block at `blockOffset`, a multiple of the cluster size.
  package init(blockOffset: UInt64) {
    precondition(blockOffset & 511 == 0, "no refcount block can be there")
    rawValue = blockOffset
  }

  /// No block: all the refcounts it would hold are 0.
  package static let empty = RefcountTableEntry(rawValue: 0)

  /// Bits 9 to 63, not checked for alignment; 0 if there is no block.
  package var blockOffset: UInt64 { rawValue & ~511 }
  /// True if a bit is set that no writer sets.
  package var hasReservedBits: Bool { rawValue & 511 != 0 }

  /// Where the block is, nil if there is none; throws if no block can be there.
  package func block(in geometry: Geometry) throws(FormatError) -> UInt64? {
    guard !hasReservedBits else {
      throw .corruptEntry(
        table: "refcount table", entry: rawValue, reason: "reserved bits are set")
    }
    guard blockOffset != 0 else { return nil }
    guard geometry.offsetInCluster(blockOffset) == 0 else {
      throw .corruptEntry(
        table: "refcount table", entry: rawValue, reason: "the refcount block is not aligned")
    }
    guard blockOffset <= UInt64(Int64.max) - UInt64(geometry.clusterSize) else {
      throw .corruptEntry(
        table: "refcount table", entry: rawValue, reason: "no file is that long")
    }
    return blockOffset
  }
}

/// Bits that L1 and L2 entries share.
enum EntryBits {
  static let offsetMask: UInt64 = 0x00ff_ffff_ffff_fe00
  static let copied: UInt64 = 1 << 63
  static let compressed: UInt64 = 1 << 62
  static let zero: UInt64 = 1
}
