internal import HostSystem
internal import Qcow2Format

// Zeroes by tables alone. A subcluster is marked; a cluster of which nothing is left gives its place up,
// unless the place is to be kept for later writes.

extension MetadataState {
  /// How the units of a range change when it becomes zero.
  enum ZeroChange: Sendable {
    /// Unallocated ones are marked, the others stay.
    case populate
    /// All read zero afterwards.
    case zero(ZeroMode, BelowContents)
  }

  /// Makes the first units zero, as far as one slice goes.
  ///
  /// Gives how many units were looked at, none where a compressed cluster is cut, and how many bytes of
  /// the disk changed.
  mutating func makeZero(
    _ units: Range<UInt64>, _ change: ZeroChange
  ) -> Lookup<(seen: UInt64, changedBytes: UInt64)> {
    let first = units.lowerBound / subclusters
    if case .noTable = place(of: first), case .zero(_, .readsZero) = change {
      // Nothing is here and nothing below: it reads zero as it is.
      let end = min(tableEnd(first) * subclusters, units.upperBound)
      return .found((end - units.lowerBound, 0))
    }
    switch writablePlace(of: first) {
    case .found(let slot):
      var unit = units.lowerBound
      var changed: UInt64 = 0
      for cluster in clusters(of: units, inSliceOf: first) {
        if isReserved(cluster) {
          return unit == units.lowerBound ? .busy : .found((unit - units.lowerBound, changed))
        }
        let mask = mask(of: units, in: cluster)
        do {
          guard let zeroed = try makeZero(slot, cluster, mask, change) else { break }
          changed += bytesOnDisk(of: zeroed, in: cluster)
        } catch {
          return unit == units.lowerBound
            ? .broken(error) : .found((unit - units.lowerBound, changed))
        }
        unit = min((cluster + 1) * subclusters, units.upperBound)
      }
      return .found((unit - units.lowerBound, changed))
    case .needsSlice(let slice, let place): return .needsSlice(slice, at: place)
    case .needsTable(let index): return .needsTable(index)
    case .busy: return .busy
    case .broken(let error): return .broken(error)
    }
  }

  /// How much of the disk some subclusters hold: the last cluster may reach beyond its end.
  private func bytesOnDisk(of subclusters: UInt32, in cluster: UInt64) -> UInt64 {
    if subclusters == 0 { return 0 }
    let size = UInt64(geometry.subclusterSize)
    let start = cluster << UInt64(geometry.clusterBits)
    let inside = geometry.virtualSize - start
    if inside >= UInt64(geometry.clusterSize) {
      return UInt64(subclusters.nonzeroBitCount) * size
    }
    var bytes: UInt64 = 0
    for bit in 0..<self.subclusters where subclusters >> UInt32(bit) & 1 != 0 && bit * size < inside
    {
      bytes += min(size, inside - bit * size)
    }
    return bytes
  }

  /// Makes subclusters of one cluster zero and gives those that changed; nil if tables cannot say it.
  private mutating func makeZero(
    _ slot: Int, _ cluster: UInt64, _ mask: UInt32, _ change: ZeroChange
  ) throws(FormatError) -> UInt32? {
    let old = try layout(slot, of: cluster)
    var new: ClusterLayout
    switch change {
    case .populate:
      let open = old.unallocated(in: mask)
      if open == 0 { return 0 }
      new = old
      new.zero |= open
    case .zero(let mode, let below):
      guard let zeroed = zeroed(old, mask, mode, below) else { return nil }
      new = zeroed
    }
    if new == old { return 0 }
    setLayout(slot, of: cluster, to: new)
    if new.host != old.host { drop(old.host) }
    return (new.zero & ~old.zero) | (old.allocated & ~new.allocated)
  }

  /// What a cluster is when subclusters of it read zero; nil for a compressed one that is cut.
  private func zeroed(
    _ old: ClusterLayout, _ mask: UInt32, _ mode: ZeroMode, _ below: BelowContents
  ) -> ClusterLayout? {
    let isWhole = mask == geometry.allSubclusters
    let keepsHost = mode == .keepAllocation && old.ownHost != nil && geometry.hasZeroFlag
    if case .compressed = old.host, !isWhole { return nil }
    var new = old
    new.allocated &= ~mask
    // Without a host and with nothing below, unallocated is zero already.
    let needsMark = below == .mayHaveData || keepsHost || (old.host != .none && !isWhole)
    if needsMark { new.zero |= mask } else { new.zero &= ~mask }
    if isWhole ? !keepsHost : new.allocated == 0 && !keepsHost { new.host = .none }
    return new
  }
}
