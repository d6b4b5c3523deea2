internal import HostSystem
internal import Qcow2Format

// Answers for readers: one extent as long as the entries in memory allow.

extension MetadataState {
  /// Where the bytes from `offset` on live, for at most `limit` bytes.
  mutating func mapping(at offset: UInt64, upTo limit: UInt64) -> Lookup<MappedExtent> {
    let clusterSize = UInt64(geometry.clusterSize)
    let first = geometry.clusterIndex(containing: offset)
    let skip = UInt64(geometry.offsetInCluster(offset))
    let lastCluster = geometry.clusterIndex(containing: offset + (limit - 1))
    var cluster = first
    var run: L2Meaning?
    scan: while cluster <= lastCluster {
      switch place(of: cluster) {
      case .noTable:
        guard join(&run, .unallocated, cluster - first) else { break scan }
        cluster = min(tableEnd(cluster), lastCluster + 1)
      case .slot(let slot, let position):
        let end = min(cache.entriesPerSlice, position + Int(lastCluster - cluster) + 1)
        for next in position..<end {
          let meaning: L2Meaning
          do { meaning = try self.meaning(slot, next) } catch {
            if run != nil { break scan }
            return .broken(error)
          }
          guard join(&run, meaning, cluster - first) else { break scan }
          cluster += 1
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
    let length = min(limit, (cluster - first) * clusterSize - skip)
    let start = GuestOffset(first * clusterSize)
    let mapping: Mapping =
      switch run {
      case .unallocated: .unallocated
      case .zero, .zeroPreallocated: .zero
      case .data(let host, _): .data(HostOffset(host + skip))
      case .compressed(let location):
        .compressed(CompressedSpan(clusterStart: start, location: location))
      }
    return .found(MappedExtent(mapping: mapping, length: length))
  }

  /// Takes the next cluster into a run if it goes on with it; `distance` is in clusters.
  private func join(_ run: inout L2Meaning?, _ next: L2Meaning, _ distance: UInt64) -> Bool {
    guard let begun = run else {
      run = next
      return true
    }
    switch (begun, next) {
    case (.unallocated, .unallocated): return true
    case (.zero, .zero), (.zero, .zeroPreallocated), (.zeroPreallocated, .zero),
      (.zeroPreallocated, .zeroPreallocated):
      return true
    case (.data(let start, _), .data(let host, _)):
      return host == start + distance * UInt64(geometry.clusterSize)
    default: return false
    }
  }
}
