/// The numbers that every calculation on an image starts from: sizes of clusters and tables, and
/// how far the disk reaches.
///
/// A Geometry exists only if its numbers are in the ranges that QEMU takes too. From then on no
/// product or sum of them overflows: a guest offset inside the disk is below 2^61, a table has at
/// most 2^22 entries of clusters of at most 2^21 bytes.
package struct Geometry: Sendable, Equatable {
  /// The qcow2 version, 2 or 3.
  package let version: Int
  /// The base-2 logarithm of the cluster size, 9 to 21.
  package let clusterBits: Int
  /// The base-2 logarithm of a refcount's width in bits, 0 to 6; always 4 in version 2.
  package let refcountOrder: Int
  /// The size of the disk in bytes, a multiple of 512.
  package let virtualSize: UInt64
  /// L2 entries have 16 bytes and tell of 32 subclusters each.
  package let hasExtendedL2: Bool
  /// Guest data is in another file, at its guest offset, and no refcount counts it.
  package let hasDataFile: Bool

  /// The largest L1 table that QEMU opens, in bytes.
  package static let maximumL1TableBytes = 32 << 20
  /// The largest refcount table that QEMU opens, in bytes.
  package static let maximumRefcountTableBytes = 8 << 20
  /// The cluster sizes of the format as logarithms.
  package static let clusterBitsRange = 9...21

  /// Checks the numbers; a `virtualSize` that is no multiple of 512 is rounded down as QEMU does.
  package init(
    version: Int, clusterBits: Int, refcountOrder: Int, virtualSize: UInt64,
    hasExtendedL2: Bool = false, hasDataFile: Bool = false
  ) throws(FormatError) {
    guard version == 2 || version == 3 else {
      throw .unsupportedVersion(UInt32(truncatingIfNeeded: version))
    }
    guard Geometry.clusterBitsRange.contains(clusterBits) else {
      throw .fieldOutOfRange(
        field: "cluster_bits", value: UInt64(max(clusterBits, 0)), allowed: 9...21)
    }
    let orders: ClosedRange<UInt64> = version == 2 ? 4...4 : 0...6
    guard refcountOrder >= 0, orders.contains(UInt64(refcountOrder)) else {
      throw .fieldOutOfRange(
        field: "refcount_order", value: UInt64(max(refcountOrder, 0)), allowed: orders)
    }
    if hasExtendedL2 {
      try check("cluster_bits with extended L2", UInt64(clusterBits), in: 14...21)
    }
    let l2Bits = clusterBits - (hasExtendedL2 ? 4 : 3)
    let maximumSize =
      UInt64(Geometry.maximumL1TableBytes / 8) << UInt64(clusterBits + l2Bits)
    try check("size", virtualSize, in: 0...maximumSize)
    self.version = version
    self.clusterBits = clusterBits
    self.refcountOrder = refcountOrder
    self.virtualSize = virtualSize & ~511
    self.hasExtendedL2 = hasExtendedL2
    self.hasDataFile = hasDataFile
  }

  /// The bytes of one cluster.
  package var clusterSize: Int { 1 << clusterBits }
  /// The base-2 logarithm of the number of entries of an L2 table.
  package var l2Bits: Int { clusterBits - (hasExtendedL2 ? 4 : 3) }
  /// The 8-byte words of an L2 entry, 1 or 2.
  package var wordsPerL2Entry: Int { hasExtendedL2 ? 2 : 1 }
  /// The subclusters of a cluster: 32, or 1 where a cluster is all or nothing.
  package var subclustersPerCluster: Int { hasExtendedL2 ? 32 : 1 }
  /// The base-2 logarithm of the subcluster size.
  package var subclusterBits: Int { clusterBits - (hasExtendedL2 ? 5 : 0) }
  /// The bytes of one subcluster, the unit of allocation and of copy on write.
  package var subclusterSize: Int { 1 << subclusterBits }
  /// All subclusters of a cluster, from bit 0 on.
  package var allSubclusters: UInt32 { hasExtendedL2 ? .max : 1 }
  /// The number of entries of an L2 table; a table is one cluster.
  package var l2EntriesPerTable: Int { 1 << l2Bits }
  /// The guest bytes that one L2 table maps.
  package var bytesPerL2Table: UInt64 { 1 << UInt64(clusterBits + l2Bits) }
  /// The number of L1 entries that the disk needs; the table may have more.
  package var l1EntriesNeeded: Int {
    let shift = UInt64(clusterBits + l2Bits)
    return Int((virtualSize + bytesPerL2Table - 1) >> shift)
  }
  /// The number of refcounts in a refcount block; a block is one cluster.
  package var refcountsPerBlock: Int { 1 << (clusterBits + 3 - refcountOrder) }
  /// The highest value that a refcount can hold.
  package var maximumRefcount: UInt64 { UInt64.max >> UInt64(64 - (1 << refcountOrder)) }
  /// True if an L2 entry can say "reads zero" without a host cluster.
  package var hasZeroFlag: Bool { version >= 3 }
  /// The clusters that the disk has, the last one perhaps in part.
  package var guestClusterCount: UInt64 {
    (virtualSize + UInt64(clusterSize) - 1) >> UInt64(clusterBits)
  }

  // MARK: - Where an offset falls; host and guest offsets alike

  /// The index of the cluster that holds `offset`.
  package func clusterIndex(containing offset: UInt64) -> UInt64 { offset >> UInt64(clusterBits) }
  /// The distance of `offset` from the start of its cluster.
  package func offsetInCluster(_ offset: UInt64) -> Int { Int(offset & UInt64(clusterSize - 1)) }
  /// The start of the cluster that holds `offset`: `offset` rounded down.
  package func clusterStart(containing offset: UInt64) -> UInt64 {
    offset & ~UInt64(clusterSize - 1)
  }
  /// The indexes of the clusters that hold a byte of an area of the file.
  package func clusters(of area: FileArea) -> Range<UInt64> {
    let first = clusterIndex(containing: area.offset)
    let count = (area.byteCount + UInt64(offsetInCluster(area.offset) + clusterSize - 1))
    return first..<first + (count >> UInt64(clusterBits))
  }
  /// The index in the L1 table for a guest offset.
  package func l1Index(_ offset: UInt64) -> Int { Int(offset >> UInt64(clusterBits + l2Bits)) }
  /// The index in its L2 table for a guest offset.
  package func l2Index(_ offset: UInt64) -> Int {
    Int(truncatingIfNeeded: offset >> UInt64(clusterBits)) & (l2EntriesPerTable - 1)
  }
}
