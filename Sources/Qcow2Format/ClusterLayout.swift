// What an L2 entry says, in one form for both kinds of entries.
//
//     standard    8 bytes    offset and flags                        1 subcluster: the cluster itself
//     extended   16 bytes    offset and flags | zero 32 | alloc 32   32 subclusters
//
// A cluster has a host cluster or not; each of its subclusters is in it, reads zero, or is left to the
// layer below. A standard entry is the same with a single subcluster, so whoever decides by layouts
// decides for both.

/// Where a guest cluster is and which of its subclusters are there. See "L2 table entry" and
/// "Extended L2 Entries" in qcow2.rst.
package struct ClusterLayout: Sendable, Equatable {
  /// The place of a cluster's bytes.
  package enum Host: Sendable, Equatable {
    /// It has none.
    case none
    /// A host cluster at this offset; only this guest cluster uses it if `copied`.
    case cluster(UInt64, copied: Bool)
    /// A compressed stream that holds the whole cluster.
    case compressed(CompressedLocation)
  }

  /// The place.
  package var host: Host
  /// The subclusters whose bytes are in the host cluster, from bit 0 on. Empty without one, and for a
  /// compressed cluster.
  package var allocated: UInt32
  /// The subclusters that read zero; none of them is in `allocated`.
  package var zero: UInt32

  /// Puts a layout together.
  package init(host: Host, allocated: UInt32 = 0, zero: UInt32 = 0) {
    precondition(allocated & zero == 0, "a subcluster cannot be data and zero")
    self.host = host
    self.allocated = allocated
    self.zero = zero
  }

  /// Nothing is here: the layer below decides.
  package static let unallocated = ClusterLayout(host: .none)

  /// The host cluster may be written to: nobody else uses it. Its offset.
  package var ownHost: UInt64? {
    if case .cluster(let offset, copied: true) = host { offset } else { nil }
  }

  /// The subclusters that neither are here nor read zero, of those in `mask`.
  package func unallocated(in mask: UInt32) -> UInt32 {
    if case .compressed = host { return 0 }
    return mask & ~(allocated | zero)
  }
}

// MARK: - From and to entries

extension ClusterLayout {
  /// What an entry's words say; `second` counts in extended entries alone. Throws for bits that no
  /// writer leaves.
  package init(
    _ first: UInt64, _ second: UInt64, _ geometry: Geometry
  ) throws(FormatError) {
    let entry = L2Entry(rawValue: first)
    if geometry.hasExtendedL2 {
      try self.init(extended: entry, SubclusterBits(rawValue: second), geometry)
      return
    }
    switch try entry.meaning(geometry) {
    case .unallocated: self.init(host: .none)
    case .zero: self.init(host: .none, zero: 1)
    case .zeroPreallocated(let offset, let copied):
      self.init(host: .cluster(offset, copied: copied), zero: 1)
    case .data(let offset, let copied):
      self.init(host: .cluster(offset, copied: copied), allocated: 1)
    case .compressed(let location): self.init(host: .compressed(location))
    }
  }

  private init(
    extended entry: L2Entry, _ bits: SubclusterBits, _ geometry: Geometry
  ) throws(FormatError) {
    func corrupt(_ reason: String) -> FormatError {
      .corruptEntry(table: "extended L2", entry: entry.rawValue, reason: reason)
    }
    if case .compressed(let location) = try entry.meaning(geometry) {
      guard bits.rawValue == 0 else { throw corrupt("a compressed cluster has no subclusters") }
      self.init(host: .compressed(location))
      return
    }
    guard bits.allocated & bits.zero == 0 else {
      throw corrupt("a subcluster is data and zero (bitmap \(bits))")
    }
    switch try entry.meaning(geometry) {
    case .data(let offset, let copied):
      self.init(
        host: .cluster(offset, copied: copied), allocated: bits.allocated, zero: bits.zero)
    case .unallocated:
      guard bits.allocated == 0 else {
        throw corrupt("subclusters are data without a host cluster (bitmap \(bits))")
      }
      self.init(host: .none, zero: bits.zero)
    case .zero, .zeroPreallocated, .compressed: throw corrupt("reserved bits are set")
    }
  }

  /// The words of the entry that says this; the second is 0 in a standard entry.
  ///
  /// A compressed cluster is never written, so it has none.
  package func words(_ geometry: Geometry) -> (first: UInt64, second: UInt64) {
    var first: UInt64
    switch host {
    case .none: first = 0
    case .cluster(let offset, let copied):
      precondition(offset & ~EntryBits.offsetMask == 0, "no data can be there")
      first = offset | (copied ? EntryBits.copied : 0)
    case .compressed: preconditionFailure("a compressed cluster was to be written")
    }
    if geometry.hasExtendedL2 {
      return (first, SubclusterBits(allocated: allocated, zero: zero).rawValue)
    }
    if zero != 0 { first |= EntryBits.zero }
    return (first, 0)
  }
}

/// The second word of an extended L2 entry. See "Extended L2 Entries" in qcow2.rst.
///
///     bit  0 - 31   subcluster 0 - 31 is in the host cluster
///         32 - 63   subcluster 0 - 31 reads zero
package struct SubclusterBits: RawRepresentable, Hashable, Sendable, CustomStringConvertible {
  /// The word as it is on disk.
  package var rawValue: UInt64

  /// The word with these bits, whatever they mean.
  package init(rawValue: UInt64) { self.rawValue = rawValue }

  /// The word for these subclusters.
  package init(allocated: UInt32, zero: UInt32) {
    rawValue = UInt64(zero) << 32 | UInt64(allocated)
  }

  /// The subclusters in the host cluster, from bit 0 on.
  package var allocated: UInt32 { UInt32(truncatingIfNeeded: rawValue) }
  /// The subclusters that read zero.
  package var zero: UInt32 { UInt32(truncatingIfNeeded: rawValue >> 32) }
  /// The word in hexadecimal.
  package var description: String { "0x" + String(rawValue, radix: 16) }
}
