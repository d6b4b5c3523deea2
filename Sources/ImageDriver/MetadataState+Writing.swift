internal import HostSystem
internal import Qcow2Format

// Answers for writers: what may be overwritten, what has to be given a home, what becomes zero.

extension MetadataState {
  /// What the write of the start of a range has to do; reserves the clusters that need a home.
  mutating func planWrite(_ range: GuestRange) -> Lookup<WritePlan> {
    let clusters = clusters(of: range)
    switch writablePlace(of: clusters.lowerBound) {
    case .found(let (slot, position)):
      if isReserved(clusters.lowerBound) { return .busy }
      let count = min(cache.entriesPerSlice - position, Int(clusters.count))
      do {
        return .found(try plan(range, clusters.lowerBound, slot, position, count))
      } catch { return .broken(error) }
    case .needsSlice(let slice, let place): return .needsSlice(slice, at: place)
    case .needsTable(let index): return .needsTable(index)
    case .busy: return .busy
    case .broken(let error): return .broken(error)
    }
  }

  private mutating func plan(
    _ range: GuestRange, _ first: UInt64, _ slot: Int, _ position: Int, _ count: Int
  ) throws(FormatError) -> WritePlan {
    let clusterSize = UInt64(geometry.clusterSize)
    switch try meaning(slot, position) {
    case .data(let host, copied: true):
      let end = try run(slot, position, count) { meaning, distance in
        meaning == .data(host + distance * clusterSize, copied: true)
      }
      let skip = UInt64(geometry.offsetInCluster(range.offset.rawValue))
      let length = min(range.length, UInt64(end - position) * clusterSize - skip)
      return .inPlace(host + skip, length: length)
    case .zeroPreallocated(let host, copied: true):
      let end = try run(slot, position, count) { meaning, distance in
        meaning == .zeroPreallocated(host + distance * clusterSize, copied: true)
      }
      let reservation = reserve(first, end - position, slot, isClaimed: false)
      return .reservedInPlace(reservation, host: host)
    default:
      let end = try run(slot, position, count) { meaning, _ in
        switch meaning {
        case .data(_, copied: true), .zeroPreallocated(_, copied: true): false
        default: true
        }
      }
      return .reserved(reserve(first, end - position, slot, isClaimed: true))
    }
  }

  /// What a stream has to do for a range: reserves the first unallocated clusters of it.
  mutating func planPopulate(_ range: GuestRange) -> Lookup<WritePlan> {
    let clusters = clusters(of: range)
    var cluster = clusters.lowerBound
    while cluster < clusters.upperBound {
      switch writablePlace(of: cluster) {
      case .found(let (slot, position)):
        let count = min(cache.entriesPerSlice - position, Int(clusters.upperBound - cluster))
        do {
          let start = try run(slot, position, count) { meaning, _ in meaning != .unallocated }
          cluster += UInt64(start - position)
          if start == position + count { continue }
          if isReserved(cluster) { return .busy }
          let end = try run(slot, start, position + count - start) { meaning, _ in
            meaning == .unallocated
          }
          return .found(.reserved(reserve(cluster, end - start, slot, isClaimed: true)))
        } catch { return .broken(error) }
      case .needsSlice(let slice, let place): return .needsSlice(slice, at: place)
      case .needsTable(let index): return .needsTable(index)
      case .busy: return .busy
      case .broken(let error): return .broken(error)
      }
    }
    return .found(.nothing)
  }

  /// How the clusters of one slice change when a range becomes zero.
  enum ZeroChange: Sendable {
    /// Unallocated ones are marked, the others stay.
    case populate
    /// All read zero afterwards.
    case zero(ZeroMode, BelowContents)
  }

  /// Makes the first clusters of `clusters` zero, as far as one slice goes.
  ///
  /// Gives how many clusters were looked at and how many bytes of the disk changed.
  mutating func makeZero(
    _ clusters: Range<UInt64>, _ change: ZeroChange
  ) -> Lookup<(seen: Int, changedBytes: UInt64)> {
    let first = clusters.lowerBound
    if case .noTable = place(of: first), case .zero(_, .readsZero) = change {
      // Nothing is here and nothing below: it reads zero as it is.
      return .found((Int(min(tableEnd(first), clusters.upperBound) - first), 0))
    }
    switch writablePlace(of: first) {
    case .found(let (slot, position)):
      let count = min(cache.entriesPerSlice - position, Int(clusters.upperBound - first))
      var changed: UInt64 = 0
      for offset in 0..<count {
        if isReserved(first + UInt64(offset)) {
          return offset == 0 ? .busy : .found((offset, changed))
        }
        do {
          if try makeZero(slot, position + offset, change) {
            changed += bytesOnDisk(first + UInt64(offset))
          }
        } catch { return offset == 0 ? .broken(error) : .found((offset, changed)) }
      }
      return .found((count, changed))
    case .needsSlice(let slice, let place): return .needsSlice(slice, at: place)
    case .needsTable(let index): return .needsTable(index)
    case .busy: return .busy
    case .broken(let error): return .broken(error)
    }
  }

  /// How much of the disk a cluster holds: the last one may reach beyond its end.
  private func bytesOnDisk(_ cluster: UInt64) -> UInt64 {
    let start = cluster << UInt64(geometry.clusterBits)
    return min(UInt64(geometry.clusterSize), geometry.virtualSize - start)
  }

  private mutating func makeZero(
    _ slot: Int, _ position: Int, _ change: ZeroChange
  ) throws(FormatError) -> Bool {
    let old = try meaning(slot, position)
    let new: L2Entry
    var kept: UInt64?
    switch (change, old) {
    case (.populate, .unallocated): new = .zero(preallocatedAt: nil, copied: false)
    case (.populate, _): return false
    case (.zero(_, .readsZero), .unallocated): return false
    case (.zero(.keepAllocation, _), .data(let host, copied: true)) where geometry.hasZeroFlag,
      (.zero(.keepAllocation, _), .zeroPreallocated(let host, copied: true)):
      new = .zero(preallocatedAt: host, copied: true)
      kept = host
    case (.zero(_, .readsZero), _): new = .unallocated
    case (.zero(_, .mayHaveData), _): new = .zero(preallocatedAt: nil, copied: false)
    }
    if new == L2Entry(rawValue: cache.entry(slot, position)) { return false }
    cache.setEntry(slot, position, to: new.rawValue)
    drop(old, keepingHost: kept)
    return true
  }

  /// Points the clusters of a reservation to `host`, and ends it.
  mutating func commit(_ reservation: Reservation, host: UInt64) throws(FormatError) {
    let slot = end(reservation)
    let position = Int(reservation.firstCluster % UInt64(cache.entriesPerSlice))
    for offset in 0..<reservation.count {
      let new = host + UInt64(offset) * UInt64(geometry.clusterSize)
      let old = try meaning(slot, position + offset)
      let entry = L2Entry.data(hostOffset: new, copied: true)
      cache.setEntry(slot, position + offset, to: entry.rawValue)
      drop(old, keepingHost: new)
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
    reservations[index].count = count
    noteReservationChange()
    return reservations[index]
  }

  // MARK: - Parts

  /// The guest clusters that a range touches.
  func clusters(of range: GuestRange) -> Range<UInt64> {
    let end = geometry.clusterIndex(containing: range.end.rawValue - 1) + 1
    return geometry.clusterIndex(containing: range.offset.rawValue)..<end
  }

  /// The entry of a cluster, in a table that may be changed.
  private mutating func writablePlace(of cluster: UInt64) -> Lookup<(Int, Int)> {
    let index = l1Index(of: cluster)
    guard L1Entry(rawValue: l1[index]).isCopied else {
      return tablesInMaking.contains(index) ? .busy : .needsTable(index)
    }
    switch place(of: cluster) {
    case .slot(let slot, let position): return .found((slot, position))
    case .needsSlice(let slice, let place): return .needsSlice(slice, at: place)
    case .busy: return .busy
    case .broken(let error): return .broken(error)
    case .noTable:
      return .broken(
        .corruptEntry(table: "L1", entry: l1[index], reason: "it marks a table that is not there"))
    }
  }

  /// The end of the entries from `position` on that satisfy `isPart`, which gets the distance.
  private func run(
    _ slot: Int, _ position: Int, _ count: Int, _ isPart: (L2Meaning, UInt64) -> Bool
  ) throws(FormatError) -> Int {
    var next = position
    while next < position + count, isPart(try meaning(slot, next), UInt64(next - position)) {
      next += 1
    }
    return next
  }

  /// Reserves clusters up to the first that somebody else holds.
  private mutating func reserve(
    _ first: UInt64, _ count: Int, _ slot: Int, isClaimed: Bool
  ) -> Reservation {
    var count = count
    for other in reservations where other.firstCluster > first {
      count = min(count, Int(other.firstCluster - first))
    }
    let reservation = Reservation(
      firstCluster: first, count: count, slice: slice(of: first), isClaimed: isClaimed)
    reservations.append(reservation)
    cache.pin(slot)
    return reservation
  }
}
