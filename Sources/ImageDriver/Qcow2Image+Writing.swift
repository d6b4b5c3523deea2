// Writing: tickets, zeroes, and L2 tables of our own.

internal import BlockIO
package import HostSystem
internal import Qcow2Format
internal import Synchronization

extension Qcow2Image {
  package func beginWrite(_ range: GuestRange) throws(ImageError) -> WriteStep {
    try prepareToWrite()
    try bitmaps?.record(range)
    return try beginAllocate(range)
  }

  package func beginAllocate(_ range: GuestRange) throws(ImageError) -> WriteStep {
    try prepareToWrite()
    switch try ask({ $0.planWrite(range) }) {
    case .inPlace(let host, let length): return .inPlace(HostOffset(host), length)
    case .reservedInPlace(let reservation, let host):
      return .allocate(ticket(reservation, host: host))
    case .reserved(let reservation): return .allocate(try giveHome(to: reservation))
    case .nothing: preconditionFailure("a write has clusters")
    }
  }

  package func beginPopulate(_ range: GuestRange) throws(ImageError) -> WriteTicket? {
    try prepareToWrite()
    switch try ask({ $0.planPopulate(range) }) {
    case .reserved(let reservation): return try giveHome(to: reservation)
    case .reservedInPlace(let reservation, let host): return ticket(reservation, host: host)
    case .nothing: return nil
    case .inPlace: preconditionFailure("a stream overwrites nothing")
    }
  }

  package func populateZeroes(_ range: GuestRange) throws(ImageError) -> UInt64 {
    try prepareToWrite()
    let units = state.withLock { $0.units(of: range) }
    return try makeZero(units, .populate).changedBytes
  }

  package func writeZeroes(
    _ range: GuestRange, mode: ZeroMode, below: BelowContents
  ) throws(ImageError) -> UInt64 {
    try prepareToWrite()
    try bitmaps?.record(range)
    if !hasZeroClusters, below == .mayHaveData { return 0 }
    let unit = UInt64(allocationUnit)
    guard range.offset.rawValue % unit == 0 else { return 0 }
    // A cluster that is cut by the end of the disk is whole all the same.
    let isTail = range.end.rawValue == virtualSize
    let whole =
      isTail
      ? range.end.roundedUp(to: UInt64(clusterSize)) : range.end.roundedDown(to: unit)
    guard whole > range.offset else { return 0 }
    let first = range.offset.rawValue / unit
    // A crash leaves what was freed and is not counted down yet.
    try marks.setDirty()
    let seen = try makeZero(first..<whole.rawValue / unit, .zero(mode, below)).seen
    let done = GuestRange(
      from: range.offset, to: min(GuestOffset((first + seen) * unit), range.end))
    if geometry.hasDataFile { try emptyDataFile(done, mode) }
    return done.length
  }

  /// Changes units slice by slice, and gives how many it got through and what changed.
  private func makeZero(
    _ units: Range<UInt64>, _ change: MetadataState.ZeroChange
  ) throws(ImageError) -> (seen: UInt64, changedBytes: UInt64) {
    var total: (seen: UInt64, changedBytes: UInt64) = (0, 0)
    while total.seen < UInt64(units.count) {
      let rest = units.lowerBound + total.seen..<units.upperBound
      let done = try ask { $0.makeZero(rest, change) }
      if done.seen == 0 { break }
      total.seen += done.seen
      total.changedBytes += done.changedBytes
    }
    return total
  }

  /// Does to the data file what was done to the tables.
  ///
  /// The range has one place there for good, so nothing has to wait for the tables: until they are
  /// durable they lead to zeroes, or to what a later write put there. A raw one has to read zero by
  /// itself; for the others space is all that matters.
  func emptyDataFile(_ range: GuestRange, _ mode: ZeroMode) throws(ImageError) {
    if range.isEmpty { return }
    let start = HostOffset(range.offset.rawValue)
    if header.isDataFileRaw {
      try data.makeZero(at: start, length: range.length, mode: mode)
    } else if mode == .unmap {
      do { try data.discard(at: start, length: range.length) } catch {
        // The space stays allocated; the tables say zero.
        return
      }
    }
  }

  // MARK: - Tickets

  private func ticket(_ reservation: Reservation, host: UInt64) -> WriteTicket {
    let unit = UInt64(allocationUnit)
    let units = reservation.units
    let guest = GuestRange(
      offset: GuestOffset(units.lowerBound * unit), length: UInt64(units.count) * unit)
    return WriteTicket(owner: self, reservation: reservation, guest: guest, host: HostOffset(host))
  }

  private func giveHome(to reservation: Reservation) throws(ImageError) -> WriteTicket {
    let skip = reservation.units.lowerBound % reservation.subclusters * UInt64(allocationUnit)
    if geometry.hasDataFile {
      // Every cluster has its place there.
      return ticket(
        reservation,
        host: reservation.clusters.lowerBound << UInt64(geometry.clusterBits) + skip)
    }
    let wanted = reservation.clusters.count
    let run: Range<UInt64>
    do { run = try claim(upTo: wanted) } catch {
      state.change { _ = $0.end(reservation) }
      throw error
    }
    let kept =
      run.count == wanted ? reservation : state.change { $0.shorten(reservation, to: run.count) }
    return ticket(kept, host: run.lowerBound << UInt64(geometry.clusterBits) + skip)
  }

  /// Points the tables to a ticket's clusters.
  func commit(_ reservation: Reservation, host: HostOffset) throws(ImageError) {
    let failure = state.change { state -> FormatError? in
      do throws(FormatError) {
        try state.commit(reservation, host: host.rawValue)
        return nil
      } catch { return error }
    }
    // The entries were read and understood when they were reserved, and nobody else may change them.
    precondition(failure == nil, "entries changed under a ticket")
  }

  /// Ends a ticket that was not used.
  func abandon(_ reservation: Reservation, host: HostOffset) {
    if reservation.isClaimed, !geometry.hasDataFile {
      let first = geometry.clusterIndex(containing: host.rawValue)
      allocator.giveBack(first..<first + UInt64(reservation.clusters.count))
    }
    state.change { _ = $0.end(reservation) }
  }

  func claim(upTo count: Int) throws(ImageError) -> Range<UInt64> {
    try marks.setDirty()
    do { return try allocator.claim(upTo: count, isInUse: holdsTable) } catch {
      throw noted(error)
    }
  }

  /// Claims neighbouring clusters for a structure that has to be in one piece.
  func claimRun(of count: Int) throws(ImageError) -> Range<UInt64> {
    try marks.setDirty()
    do { return try allocator.claimRun(of: count, isInUse: holdsTable) } catch {
      throw noted(error)
    }
  }

  /// Whether the L1 table in memory has an L2 table among the clusters.
  private func holdsTable(_ run: Range<UInt64>) -> Bool {
    // Lock: allocator, then the tables.
    state.withLock { state in
      state.l1.contains { entry in
        let table = L1Entry(rawValue: entry).tableOffset
        return table != 0 && run.contains(geometry.clusterIndex(containing: table))
      }
    }
  }

  // MARK: - L2 tables

  /// Gives an L1 index a table that only the active disk uses: a new one, or a copy.
  func makeTable(_ index: Int) throws(ImageError) {
    do throws(ImageError) {
      let old = state.withLock { L1Entry(rawValue: $0.l1[index]) }
      let oldTable: UInt64?
      do { oldTable = try old.table(in: geometry) } catch { throw .format(path: path, error) }
      let content =
        if let oldTable {
          try storage.readTable(geometry.clusterSize, at: oldTable)
        } else {
          [UInt8](repeating: 0, count: geometry.clusterSize)
        }
      let cluster = try claim(upTo: 1).lowerBound
      let offset = cluster << UInt64(geometry.clusterBits)
      // Order: the whole table is written before memory points to it, and the flush that writes the
      // L1 entry syncs in between.
      do { try storage.writeTable(content, at: offset) } catch {
        allocator.giveBack(cluster..<cluster + 1)
        throw error
      }
      state.change { state in
        state.setL1(index, to: L1Entry(tableOffset: offset, copied: true).rawValue)
        if let oldTable {
          state.dropped.append(
            .init(index: geometry.clusterIndex(containing: oldTable), isData: false))
        }
        state.endMaking(index)
      }
    } catch {
      state.change { $0.endMaking(index) }
      throw error
    }
  }

  // MARK: - The first write

  /// Clears the features that promise what a writer without them breaks, and no others.
  func prepareToWrite() throws(ImageError) {
    if isReadOnly { throw .readOnly(path: path) }
    if let corruption = marks.corruption {
      throw .needsRepair(path: path, reason: "the image was found corrupt (\(corruption))")
    }
    guard needsFirstWrite.load(ordering: .acquiring) else { return }
    try firstWrite.withLock { _ throws(ImageError) in
      guard needsFirstWrite.load(ordering: .relaxed) else { return }
      // Order: cleared on disk before anything changes that an autoclear feature describes.
      try storage.writeEntries([keptAutoclear], at: 88)
      do throws(StorageError) { try storage.flush() } catch { throw .storage(error) }
      needsFirstWrite.store(false, ordering: .releasing)
    }
  }
}
