// Filling what internal snapshots lack: the right to do it for a part of the disk, one thread at a time.
//
// The holder claims host clusters, writes all their bytes, says which groups of snapshots get them, and
// commits. Until then nothing of the image has changed but clusters that are counted and not used; a
// fill that is dropped gives them back.

package import HostSystem
internal import Qcow2Format

/// The right to fill the snapshots of an image over a part of the disk.
package struct SnapshotFill: ~Copyable {
  /// What the snapshots lack.
  package let part: SnapshotPart
  private var owner: Qcow2Image?
  private var content: Content

  /// What was made for the snapshots so far.
  struct Content: Sendable {
    /// New entries, by the number of the group: guest clusters, and their host clusters or zeroes.
    var entries: [[(clusters: Range<UInt64>, host: UInt64?)]]
    /// Host clusters, and how many L1 entries will lead to each.
    var claimed: [(clusters: Range<UInt64>, users: UInt64)] = []
  }

  init(owner: Qcow2Image, part: SnapshotPart) {
    self.owner = owner
    self.part = part
    content = Content(entries: Array(repeating: [], count: part.groups.count))
  }

  /// Sets of the groups, each small enough for its snapshots to have one host cluster.
  ///
  /// With subclusters a group may have a part of a cluster that no other group has.
  package func sharing(_ groups: [Int]) -> [[Int]] {
    guard let owner else { preconditionFailure("a fill has ended") }
    if owner.geometry.subclustersPerCluster > 1 { return groups.map { [$0] } }
    var sets: [[Int]] = []
    var users: UInt64 = 0
    for group in groups {
      let more = UInt64(part.groups[group].members.count)
      if sets.isEmpty || more > owner.geometry.maximumRefcount - users {
        sets.append([])
        users = 0
      }
      sets[sets.count - 1].append(group)
      users += more
    }
    return sets
  }

  /// Claims room for the start of a range of missing clusters; the groups are one set of `sharing`.
  ///
  /// Gives how much of the range has room, and where. All of that must be written before the commit.
  package mutating func claim(
    _ range: GuestRange, for groups: [Int]
  ) throws(ImageError) -> (range: GuestRange, host: HostOffset) {
    guard let owner else { preconditionFailure("a fill has ended") }
    let wanted = clusters(range)
    let run = try owner.claim(upTo: wanted.count)
    let users = groups.reduce(0) { $0 + UInt64(part.groups[$1].members.count) }
    content.claimed.append((run, users))
    let filled = wanted.lowerBound..<wanted.lowerBound + UInt64(run.count)
    let host = run.lowerBound << UInt64(owner.geometry.clusterBits)
    for group in groups { content.entries[group].append((filled, host)) }
    let length = UInt64(run.count) << UInt64(owner.geometry.clusterBits)
    return (GuestRange(offset: range.offset, length: length), HostOffset(host))
  }

  /// Makes a range of missing clusters read zero. The image has zero clusters.
  package mutating func makeZero(_ range: GuestRange, for groups: [Int]) {
    for group in groups { content.entries[group].append((clusters(range), nil)) }
  }

  /// Puts what the snapshots of a group have of a range of missing clusters over what is below them:
  /// the subclusters that are there, or read zero.
  package func keepOwn(
    _ range: GuestRange, of group: Int, in bytes: inout MutableRawSpan
  ) throws(ImageError) {
    guard let owner else { preconditionFailure("a fill has ended") }
    try owner.readOwn(range, of: part.groups[group], into: &bytes)
  }

  /// Whether a missing cluster may be there in part.
  package var hasParts: Bool { (owner?.geometry.subclustersPerCluster ?? 1) > 1 }

  /// The clusters of a range that the active disk and a group have in one place, and the group leaves.
  ///
  /// The active disk needs places of its own there before the commit. Left as the only user, its entry
  /// would have to be marked as such, and a mark and a refcount do not change in one step.
  package func sharedWithActive(
    _ range: GuestRange, by group: Int
  ) throws(ImageError) -> [GuestRange] {
    guard let owner else { preconditionFailure("a fill has ended") }
    return try owner.sharedWithActive(clusters(range), by: part.groups[group])
  }

  /// Gives the snapshots what was made for them; durable with the next flush.
  package consuming func commit() throws(ImageError) {
    guard let owner = owner.take() else { preconditionFailure("a fill ended twice") }
    defer { owner.endFill() }
    try owner.commit(part, content)
  }

  private func clusters(_ range: GuestRange) -> Range<UInt64> {
    guard let owner else { preconditionFailure("a fill has ended") }
    let bits = UInt64(owner.geometry.clusterBits)
    return range.offset.rawValue >> bits..<range.end.rawValue >> bits
  }

  deinit {
    // Forgotten, or given up after an error: nothing points to what was claimed.
    guard let owner else { return }
    owner.abandon(content.claimed)
    owner.endFill()
  }
}

extension Qcow2Image {
  /// Entries that wait for a flush; beyond that the fill flushes itself.
  private static let mostWaitingEntries = 1 << 16

  /// Begins to fill the start of a range, as `snapshotPart` takes it. Waits for another fill's end.
  package func beginFill(_ range: GuestRange) throws(ImageError) -> SnapshotFill {
    try prepareToWrite()
    _ = snapshots.wait { tables -> Bool? in
      if tables.isFilling { return nil }
      tables.isFilling = true
      return true
    }
    do {
      return SnapshotFill(owner: self, part: try snapshotPart(range))
    } catch {
      endFill()
      throw error
    }
  }

  func endFill() { snapshots.change { $0.isFilling = false } }

  /// Gives back clusters of a fill that nothing points to.
  func abandon(_ claimed: [(clusters: Range<UInt64>, users: UInt64)]) {
    for run in claimed {
      do throws(ImageError) {
        if run.users > 1 { try allocator.setReferences(of: run.clusters, to: 1) }
      } catch { continue }
      allocator.giveBack(run.clusters)
    }
  }

  func commit(_ part: SnapshotPart, _ content: SnapshotFill.Content) throws(ImageError) {
    var claimed = content.claimed
    do throws(ImageError) {
      // Order: refcounts and new tables are written at once, the flush syncs, then it writes entries.
      for run in claimed where run.users > 1 {
        try allocator.setReferences(of: run.clusters, to: run.users)
      }
      var waiting: [UInt64: UInt64] = [:]
      var dropped: [MetadataState.HostCluster] = []
      for (group, entries) in zip(part.groups, content.entries) where !entries.isEmpty {
        let index = geometry.l1Index(part.range.offset.rawValue)
        let changes = try changes(entries, of: group)
        for host in changes.left {
          for _ in group.members { dropped.append(.init(index: host, isData: true)) }
        }
        if let table = group.table {
          if try isOwn(table, of: group, at: index) {
            for (place, value) in changes.words { waiting[table + UInt64(place * 8)] = value }
            continue
          }
          let cluster = geometry.clusterIndex(containing: table)
          for _ in group.members { dropped.append(.init(index: cluster, isData: false)) }
        }
        let table = try makeTable(for: group, changes.words, &claimed)
        let entry = L1Entry(tableOffset: table, copied: false).rawValue
        let places = try snapshotPlaces()
        for number in group.members {
          waiting[places[number].l1TableOffset + UInt64(index) * 8] = entry
        }
      }
      let count = state.withLock { state in
        state.snapshotEntries.merge(waiting) { $1 }
        state.dropped += dropped
        return state.snapshotEntries.count
      }
      // Order: counted after lookups see the new entries, or one would keep old tables for new ones.
      snapshots.withLock { $0.changes += 1 }
      if count < Self.mostWaitingEntries { return }
    } catch {
      abandon(claimed)
      throw error
    }
    try flush()
  }

  /// Whether nobody but the members of a group uses their table, so that it may be written to.
  private func isOwn(
    _ table: UInt64, of group: SnapshotGroup, at index: Int
  ) throws(ImageError) -> Bool {
    // The active disk moves to a copy first: otherwise it would be the only user of a table that is
    // not marked as such. The new place is durable before entries of the old one change.
    _ = try ask { $0.leaves(table: table, at: index) }
    let cluster = geometry.clusterIndex(containing: table)
    return try allocator.references(of: cluster) == UInt64(group.members.count)
  }

  /// Writes a new table for a group, a copy of the one that it has, with some entries changed.
  private func makeTable(
    for group: SnapshotGroup, _ values: [(place: Int, value: UInt64)],
    _ claimed: inout [(clusters: Range<UInt64>, users: UInt64)]
  ) throws(ImageError) -> UInt64 {
    var table = [UInt64](repeating: 0, count: geometry.clusterSize / 8)
    if let old = group.table { table = try snapshotEntries(table.count, at: old) }
    for (place, value) in values { table[place] = value }
    let users = UInt64(group.members.count)
    let run = try claim(upTo: 1)
    claimed.append((run, users))
    let offset = run.lowerBound << UInt64(geometry.clusterBits)
    try storage.writeEntries(table, at: offset)
    if users > 1 { try allocator.setReferences(of: run, to: users) }
    return offset
  }

  /// The words of a group's table that change, by their place in it, and the host clusters that its
  /// snapshots leave, by index. No entry is marked: only the active tables are.
  private func changes(
    _ entries: [(clusters: Range<UInt64>, host: UInt64?)], of group: SnapshotGroup
  ) throws(ImageError) -> (words: [(place: Int, value: UInt64)], left: [UInt64]) {
    var words: [(place: Int, value: UInt64)] = []
    var left: [UInt64] = []
    let all = geometry.allSubclusters
    let perEntry = geometry.wordsPerL2Entry
    for (clusters, host) in entries {
      let index = geometry.l2Index(clusters.lowerBound << UInt64(geometry.clusterBits))
      let layouts = try layouts(clusters.count, of: group, from: index)
      for (distance, old) in layouts.enumerated() {
        var new = old
        if let host {
          let place = host + UInt64(distance) << UInt64(geometry.clusterBits)
          new = ClusterLayout(host: .cluster(place, copied: false), allocated: all)
          if case .cluster(let offset, _) = old.host {
            left.append(geometry.clusterIndex(containing: offset))
          }
        } else {
          new.zero |= old.unallocated(in: all)
        }
        let (first, second) = new.words(geometry)
        words.append(((index + distance) * perEntry, first))
        if perEntry == 2 { words.append(((index + distance) * perEntry + 1, second)) }
      }
    }
    return (words, left)
  }

  fileprivate func sharedWithActive(
    _ clusters: Range<UInt64>, by group: SnapshotGroup
  ) throws(ImageError) -> [GuestRange] {
    let index = geometry.l2Index(clusters.lowerBound << UInt64(geometry.clusterBits))
    let layouts = try layouts(clusters.count, of: group, from: index)
    var shared: [GuestRange] = []
    for (cluster, layout) in zip(clusters, layouts) {
      guard case .cluster(let host, _) = layout.host,
        try ask({ $0.hostCluster(of: cluster) }) == host
      else { continue }
      let start = GuestOffset(cluster << UInt64(geometry.clusterBits))
      shared.append(GuestRange(offset: start, length: UInt64(clusterSize)))
    }
    return shared
  }

  private func layouts(
    _ count: Int, of group: SnapshotGroup, from index: Int
  ) throws(ImageError) -> [ClusterLayout] {
    guard let table = group.table else { return Array(repeating: .unallocated, count: count) }
    return try snapshotLayouts(count, in: table, from: index)
  }

  /// Fills the parts of a range that the snapshots of a group have; the others stay as they are.
  fileprivate func readOwn(
    _ range: GuestRange, of group: SnapshotGroup, into bytes: inout MutableRawSpan
  ) throws(ImageError) {
    let unit = geometry.subclusterSize
    let count = Int(range.length) / clusterSize
    let layouts = try layouts(count, of: group, from: geometry.l2Index(range.offset.rawValue))
    for (number, layout) in layouts.enumerated() {
      for bit in 0..<geometry.subclustersPerCluster {
        let start = number * clusterSize + bit * unit
        if layout.zero >> UInt32(bit) & 1 != 0 {
          bytes.fillWithZeroes(start..<start + unit)
        } else if layout.allocated >> UInt32(bit) & 1 != 0,
          case .cluster(let host, _) = layout.host
        {
          var part = bytes.slice(start..<start + unit)
          try read(.data(HostOffset(host + UInt64(bit * unit))), skip: 0, into: &part)
        }
      }
    }
  }
}
