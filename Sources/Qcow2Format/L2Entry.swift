/// An entry of an L2 table: where a guest cluster is. See "Cluster mapping" in qcow2.rst.
///
///     bit  0       reads as zeroes (version 3)
///          1 - 8   reserved, 0
///          9 - 55  host offset of the cluster, 0 if it has none
///         56 - 61  reserved, 0
///         62       compressed: bits 0 - 61 are a ``CompressedLocation``
///         63       the cluster's refcount is one
///
/// The raw entry and its meaning are two types: the meaning depends on version and cluster size,
/// and not every entry has one.
package struct L2Entry: RawRepresentable, Hashable, Sendable {
  /// The entry as it is on disk.
  package var rawValue: UInt64

  /// The entry with these bits, whatever they mean.
  package init(rawValue: UInt64) { self.rawValue = rawValue }

  /// Whether the entry is marked as the only user of its cluster; never true for compressed data.
  package var isCopied: Bool { rawValue & EntryBits.copied != 0 && !isCompressed }

  /// Whether the entry says that its cluster is compressed.
  package var isCompressed: Bool { rawValue & EntryBits.compressed != 0 }

  /// Bits 9 to 55, not checked for alignment: the host cluster unless the entry is compressed.
  package var hostOffset: UInt64 { rawValue & EntryBits.offsetMask }

  /// What the entry says; throws for bits that no writer leaves.
  package func meaning(_ geometry: Geometry) throws(FormatError) -> L2Meaning {
    if isCompressed {
      guard !geometry.hasDataFile else {
        throw corrupt("it is compressed in an image with an external data file")
      }
      return .compressed(CompressedLocation(entry: self, clusterBits: geometry.clusterBits))
    }
    let readsZero = rawValue & EntryBits.zero != 0
    if readsZero, !geometry.hasZeroFlag {
      throw corrupt("the zero flag does not exist in version 2")
    }
    guard rawValue & ~(EntryBits.offsetMask | EntryBits.copied | EntryBits.zero) == 0 else {
      throw corrupt("reserved bits are set")
    }
    guard geometry.offsetInCluster(hostOffset) == 0 else {
      throw corrupt("the host cluster is not aligned")
    }
    if geometry.hasDataFile {
      // The mark tells whether there is a place: offset 0 is one. Nobody else can use it.
      guard isCopied || hostOffset != 0 else { return readsZero ? .zero : .unallocated }
      return readsZero
        ? .zeroPreallocated(hostOffset, copied: true) : .data(hostOffset, copied: true)
    }
    switch (hostOffset, readsZero) {
    case (0, true): return .zero
    case (0, false): return .unallocated
    case (_, true): return .zeroPreallocated(hostOffset, copied: isCopied)
    case (_, false): return .data(hostOffset, copied: isCopied)
    }
  }

  private func corrupt(_ reason: String) -> FormatError {
    .corruptEntry(table: "L2", entry: rawValue, reason: reason)
  }
}

/// What an L2 entry says about its guest cluster.
package enum L2Meaning: Sendable, Equatable {
  /// The backing file decides, or zeroes if there is none.
  case unallocated
  /// Zeroes; no host cluster.
  case zero
  /// Zeroes; a host cluster, whose bytes mean nothing, is kept for later.
  case zeroPreallocated(UInt64, copied: Bool)
  /// The bytes of the host cluster at this offset, which may be written in place if `copied`.
  case data(UInt64, copied: Bool)
  /// The bytes that a compressed stream holds.
  case compressed(CompressedLocation)
}

/// Where the bytes of a compressed cluster are. See "Compressed Clusters Descriptor".
///
/// With x = 62 - (cluster_bits - 8), bits 0 to x-1 are the host offset, of any alignment; bits x to
/// 61 are the number of 512-byte sectors after the one in which it starts. The stream may end
/// earlier, cross host clusters, share its last sector with the next one, and pass the file's end.
package struct CompressedLocation: Sendable, Hashable {
  /// Where the stream starts.
  package var hostOffset: UInt64
  /// The bytes that may belong to the stream, 1 to two clusters; the decoder finds its end.
  package var byteCount: Int

  /// A stream of at most `byteCount` bytes at `hostOffset`.
  package init(hostOffset: UInt64, byteCount: Int) {
    self.hostOffset = hostOffset
    self.byteCount = byteCount
  }

  /// What a compressed entry says; its two highest bits do not matter.
  package init(entry: L2Entry, clusterBits: Int) {
    let entry = entry.rawValue
    let offsetBits = UInt64(62 - (clusterBits - 8))
    let sectorMask = (UInt64(1) << UInt64(clusterBits - 8)) - 1
    hostOffset = entry & ((UInt64(1) << offsetBits) - 1)
    let sectors = ((entry >> offsetBits) & sectorMask) + 1
    byteCount = Int(sectors * 512 - (hostOffset & 511))
  }

  /// The indexes of the host clusters that the stream touches: each has a reference for it.
  package func hostClusters(clusterBits: Int) -> Range<UInt64> {
    let last = hostOffset + UInt64(byteCount) - 1
    return hostOffset >> UInt64(clusterBits)..<(last >> UInt64(clusterBits)) + 1
  }
}
