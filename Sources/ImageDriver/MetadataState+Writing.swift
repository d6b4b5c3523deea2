internal import HostSystem
internal import Qcow2Format

// Answers for writers: what may be overwritten, and what has to be given a home.
//
// A write meets three kinds of guest clusters, and takes neighbours of one kind together:
//
//     own     a host cluster that nobody else uses. What is there is overwritten in place; the other
//             subclusters are filled, in the same host cluster, by a ticket.
//     fresh   no host cluster. The ticket brings one, and only the subclusters of the range are filled.
//     taken   a host cluster that a snapshot uses too, or a compressed one. All of the cluster moves.
//
// Without extended L2 entries a cluster is one subcluster, and the last two kinds are the same.

extension MetadataState {
  private enum ClusterKind {
    case own
    case fresh
    case taken
  }

  private func kind(_ layout: ClusterLayout) -> ClusterKind {
    if layout.ownHost != nil { return .own }
    if geometry.subclustersPerCluster == 1 { return .taken }
    return layout.host == .none ? .fresh : .taken
  }

  /// What the write of the start of a range has to do; reserves the units that need a home.
  mutating func planWrite(_ range: GuestRange) -> Lookup<WritePlan> {
    let units = units(of: range)
    let first = units.lowerBound / subclusters
    switch writablePlace(of: first) {
    case .found(let slot):
      if isReserved(first) { return .busy }
      do { return .found(try plan(range, units, slot)) } catch { return .broken(error) }
    case .needsSlice(let slice, let place): return .needsSlice(slice, at: place)
    case .needsTable(let index): return .needsTable(index)
    case .busy: return .busy
    case .broken(let error): return .broken(error)
    }
  }

  private mutating func plan(
    _ range: GuestRange, _ units: Range<UInt64>, _ slot: Int
  ) throws(FormatError) -> WritePlan {
    let start = units.lowerBound
    let cluster = start / subclusters
    let layout = try layout(slot, of: cluster)
    guard let host = layout.ownHost else {
      let kind = kind(layout)
      let end = try run(units, slot) { next, _ in self.kind(next) == kind ? subclusters : 0 }
      return .reserved(reserve(kind == .taken ? whole(start..<end) : start..<end, slot))
    }
    let bit = start % subclusters
    let place = host + bit << UInt64(geometry.subclusterBits)
    if layout.allocated >> UInt32(bit) & 1 != 0 {
      let end = try ownRun(units, slot, host) { $0.allocated }
      let skip = range.offset.rawValue - start << UInt64(geometry.subclusterBits)
      let length = min(range.length, (end - start) << UInt64(geometry.subclusterBits) - skip)
      return .inPlace(place + skip, length: length)
    }
    let end = try ownRun(units, slot, host) { ~$0.allocated }
    return .reservedInPlace(reserve(start..<end, slot, isClaimed: false), host: place)
  }

  /// What a stream has to do for a range: reserves the first unallocated units of it.
  mutating func planPopulate(_ range: GuestRange) -> Lookup<WritePlan> {
    var units = units(of: range)
    while !units.isEmpty {
      let cluster = units.lowerBound / subclusters
      switch writablePlace(of: cluster) {
      case .found(let slot):
        do {
          guard let first = try firstUnallocated(of: units, slot) else {
            let seen = min(
              (slice(of: cluster) + 1) * UInt64(clustersPerSlice) * subclusters,
              units.upperBound)
            units = seen..<units.upperBound
            continue
          }
          if isReserved(first / subclusters) { return .busy }
          return .found(try planPopulate(first..<units.upperBound, slot))
        } catch { return .broken(error) }
      case .needsSlice(let slice, let place): return .needsSlice(slice, at: place)
      case .needsTable(let index): return .needsTable(index)
      case .busy: return .busy
      case .broken(let error): return .broken(error)
      }
    }
    return .found(.nothing)
  }

  /// Reserves the run of unallocated units that begins the range.
  private mutating func planPopulate(
    _ units: Range<UInt64>, _ slot: Int
  ) throws(FormatError) -> WritePlan {
    let start = units.lowerBound
    let layout = try layout(slot, of: start / subclusters)
    let all = geometry.allSubclusters
    if let host = layout.ownHost {
      let end = try ownRun(units, slot, host) { $0.unallocated(in: all) }
      let place = host + (start % subclusters) << UInt64(geometry.subclusterBits)
      return .reservedInPlace(reserve(start..<end, slot, isClaimed: false), host: place)
    }
    if layout.host != .none {
      // The rest of the cluster comes along: the whole cluster has to move.
      return .reserved(reserve(whole(start..<start + 1), slot))
    }
    let end = try run(units, slot) { next, from in
      next.host == .none ? Self.length(of: next.unallocated(in: all), from: from) : 0
    }
    return .reserved(reserve(start..<end, slot))
  }

  /// Points the units of a reservation to `host`, and ends it.
  mutating func commit(_ reservation: Reservation, host: UInt64) throws(FormatError) {
    let slot = end(reservation)
    let clusterBits = UInt64(geometry.clusterBits)
    let units = reservation.units
    let base =
      host - (units.lowerBound % subclusters) << UInt64(geometry.subclusterBits)
    for cluster in reservation.clusters {
      let place = base + (cluster - reservation.clusters.lowerBound) << clusterBits
      let old = try layout(slot, of: cluster)
      let isInPlace = old.ownHost == place
      let filled = mask(of: units, in: cluster)
      let allocated = isInPlace ? old.allocated | filled : filled
      setLayout(
        slot, of: cluster,
        to: ClusterLayout(
          host: .cluster(place, copied: true), allocated: allocated, zero: old.zero & ~allocated))
      if !isInPlace { drop(old.host) }
    }
  }

  /// Forgets a reservation and gives the slot of its slice.
  @discardableResult
  mutating func end(_ reservation: Reservation) -> Int {
    guard let index = reservations.firstIndex(of: reservation),
      let slot = cache.slot(of: reservation.slice)
    else { preconditionFailure("a reservation ended twice") }
    reservations.remove(at: index)
    noteReservationChange()
    cache.unpin(slot)
    return slot
  }

  /// Lets go of all but the first `count` clusters.
  mutating func shorten(_ reservation: Reservation, to count: Int) -> Reservation {
    guard let index = reservations.firstIndex(of: reservation) else {
      preconditionFailure("a reservation that does not exist was shortened")
    }
    let end = (reservation.clusters.lowerBound + UInt64(count)) * subclusters
    let units = reservation.units
    reservations[index].units = units.lowerBound..<min(units.upperBound, end)
    noteReservationChange()
    return reservations[index]
  }

  // MARK: - Parts

  /// The subclusters of a cluster, as many as a unit number is counted by.
  var subclusters: UInt64 { UInt64(geometry.subclustersPerCluster) }

  /// The units that a range touches: subclusters of the disk, numbered from its start.
  func units(of range: GuestRange) -> Range<UInt64> {
    let bits = UInt64(geometry.subclusterBits)
    return range.offset.rawValue >> bits..<(range.end.rawValue - 1) >> bits + 1
  }

  /// The units of all clusters that some units touch.
  private func whole(_ units: Range<UInt64>) -> Range<UInt64> {
    let start = units.lowerBound / subclusters
    let end = (units.upperBound + subclusters - 1) / subclusters
    return start * subclusters..<end * subclusters
  }

  /// The subclusters of a cluster that are among the units.
  func mask(of units: Range<UInt64>, in cluster: UInt64) -> UInt32 {
    let start = cluster * subclusters
    let first = max(units.lowerBound, start) - start
    let end = min(units.upperBound, start + subclusters) - start
    precondition(first < end, "units outside of their cluster")
    let ones = geometry.allSubclusters >> UInt32(subclusters - (end - first))
    return ones << UInt32(first)
  }

  /// How many bits are set without a gap from `first` on.
  private static func length(of mask: UInt32, from first: UInt64) -> UInt64 {
    UInt64((~(mask >> UInt32(first))).trailingZeroBitCount)
  }

  /// The slot of a cluster's entry, in a table that may be changed.
  mutating func writablePlace(of cluster: UInt64) -> Lookup<Int> {
    let index = l1Index(of: cluster)
    guard L1Entry(rawValue: l1[index]).isCopied else {
      return tablesInMaking.contains(index) ? .busy : .needsTable(index)
    }
    switch place(of: cluster) {
    case .slot(let slot, _): return .found(slot)
    case .needsSlice(let slice, let place): return .needsSlice(slice, at: place)
    case .busy: return .busy
    case .broken(let error): return .broken(error)
    case .noTable:
      return .broken(
        .corruptEntry(table: "L1", entry: l1[index], reason: "it marks a table that is not there"))
    }
  }

  /// The first unallocated unit in the slice of the first one, nil if there is none.
  private func firstUnallocated(
    of units: Range<UInt64>, _ slot: Int
  ) throws(FormatError) -> UInt64? {
    for cluster in clusters(of: units, inSliceOf: units.lowerBound / subclusters) {
      let open = try layout(slot, of: cluster).unallocated(in: mask(of: units, in: cluster))
      if open != 0 { return cluster * subclusters + UInt64(open.trailingZeroBitCount) }
    }
    return nil
  }

  /// The clusters of some units, as far as one slice goes.
  func clusters(of units: Range<UInt64>, inSliceOf first: UInt64) -> Range<UInt64> {
    let sliceEnd = (slice(of: first) + 1) * UInt64(clustersPerSlice)
    return first..<min(sliceEnd, (units.upperBound + subclusters - 1) / subclusters)
  }

  /// The end of the run that begins the units, in their slice: `take` tells of a cluster how many of
  /// its subclusters from one on belong to it.
  private func run(
    _ units: Range<UInt64>, _ slot: Int, _ take: (ClusterLayout, UInt64) -> UInt64
  ) throws(FormatError) -> UInt64 {
    var unit = units.lowerBound
    for cluster in clusters(of: units, inSliceOf: unit / subclusters) {
      let from = unit % subclusters
      let taken = min(take(try layout(slot, of: cluster), from), subclusters - from)
      unit += taken
      if from + taken < subclusters { break }
    }
    return min(unit, units.upperBound)
  }

  /// The end of the run of subclusters in `part` whose own host clusters follow each other.
  private func ownRun(
    _ units: Range<UInt64>, _ slot: Int, _ host: UInt64, _ part: (ClusterLayout) -> UInt32
  ) throws(FormatError) -> UInt64 {
    var next = host
    return try run(units, slot) { layout, from in
      guard layout.ownHost == next else { return 0 }
      next += UInt64(geometry.clusterSize)
      return Self.length(of: part(layout), from: from)
    }
  }

  /// Reserves units up to the first cluster that somebody else holds.
  private mutating func reserve(
    _ units: Range<UInt64>, _ slot: Int, isClaimed: Bool = true
  ) -> Reservation {
    let first = units.lowerBound / subclusters
    var end = units.upperBound
    for other in reservations where other.clusters.lowerBound > first {
      end = min(end, other.clusters.lowerBound * subclusters)
    }
    let reservation = Reservation(
      units: units.lowerBound..<end, subclusters: subclusters, slice: slice(of: first),
      isClaimed: isClaimed)
    reservations.append(reservation)
    cache.pin(slot)
    return reservation
  }
}
