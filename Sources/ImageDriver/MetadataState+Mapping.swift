internal import HostSystem
internal import Qcow2Format

// Answers for readers: one extent as long as the entries in memory allow.

extension MetadataState {
  /// What the subclusters of a run have in common.
  private enum Run: Equatable {
    case unallocated
    case zero
    /// The first byte of the run is at this host offset, the others follow.
    case data(UInt64)
    case compressed(CompressedLocation)
  }

  /// Where the bytes from `offset` on live, for at most `limit` bytes.
  mutating func mapping(at offset: UInt64, upTo limit: UInt64) -> Lookup<MappedExtent> {
    let unitBits = UInt64(geometry.subclusterBits)
    let perCluster = UInt64(geometry.subclustersPerCluster)
    // Units are the disk's subclusters, numbered from its start.
    let first = offset >> unitBits
    let end = (offset + (limit - 1)) >> unitBits + 1
    var unit = first
    var run: Run?
    scan: while unit < end {
      let cluster = unit / perCluster
      switch place(of: cluster) {
      case .noTable:
        guard join(&run, .unallocated, unit - first) else { break scan }
        unit = min(tableEnd(cluster) * perCluster, end)
      case .slot(let slot, let position):
        let last = min(
          UInt64(clustersPerSlice - position), (end - 1) / perCluster - cluster + 1)
        for next in cluster..<cluster + last {
          let layout: ClusterLayout
          do { layout = try self.layout(slot, of: next) } catch {
            if run != nil { break scan }
            return .broken(error)
          }
          repeat {
            let (part, count) = part(of: layout, from: Int(unit % perCluster))
            guard join(&run, part, unit - first) else { break scan }
            unit += UInt64(count)
          } while unit < min(end, (next + 1) * perCluster)
        }
      // What is known already is an answer too.
      case .needsSlice(let slice, let place):
        if run != nil { break scan }
        return .needsSlice(slice, at: place)
      case .busy:
        if run != nil { break scan }
        return .busy
      case .broken(let error):
        if run != nil { break scan }
        return .broken(error)
      }
    }
    guard let run else { preconditionFailure("a mapping of nothing was asked for") }
    let skip = offset - first << unitBits
    let length = min(limit, (unit - first) << unitBits - skip)
    let mapping: Mapping =
      switch run {
      case .unallocated: .unallocated
      case .zero: .zero
      case .data(let host): .data(HostOffset(host + skip))
      case .compressed(let location):
        .compressed(
          CompressedSpan(
            clusterStart: GuestOffset(geometry.clusterStart(containing: offset)),
            location: location))
      }
    return .found(MappedExtent(mapping: mapping, length: length))
  }

  /// What a subcluster is part of, and how many from it on are alike in the same cluster.
  private func part(of layout: ClusterLayout, from subcluster: Int) -> (Run, count: Int) {
    let count = geometry.subclustersPerCluster
    if case .compressed(let location) = layout.host {
      return (.compressed(location), count - subcluster)
    }
    let bit = UInt32(1) << UInt32(subcluster)
    let isData = layout.allocated & bit != 0
    let isZero = layout.zero & bit != 0
    let alike = isData ? layout.allocated : isZero ? layout.zero : ~(layout.allocated | layout.zero)
    let length = min((~(alike >> UInt32(subcluster))).trailingZeroBitCount, count - subcluster)
    if isZero { return (.zero, length) }
    guard isData, case .cluster(let host, _) = layout.host else { return (.unallocated, length) }
    return (.data(host + UInt64(subcluster) << UInt64(geometry.subclusterBits)), length)
  }

  /// Takes the next part into a run if it goes on with it; `distance` is in units.
  private func join(_ run: inout Run?, _ next: Run, _ distance: UInt64) -> Bool {
    guard let begun = run else {
      run = next
      return true
    }
    switch (begun, next) {
    case (.unallocated, .unallocated), (.zero, .zero): return true
    case (.data(let start), .data(let host)):
      return host == start + distance << UInt64(geometry.subclusterBits)
    default: return false
    }
  }
}
