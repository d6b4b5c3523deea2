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
    case .nothing: return nil
    case .inPlace, .reservedInPlace: preconditionFailure("a stream overwrites nothing")
    }
  }

  package func populateZeroes(_ range: GuestRange) throws(ImageError) -> UInt64 {
    try prepareToWrite()
    let clusters = state.withLock { $0.clusters(of: range) }
    return try makeZero(clusters, .populate)
  }

  package func writeZeroes(
    _ range: GuestRange, mode: ZeroMode, below: BelowContents
  ) throws(ImageError) -> UInt64 {
    try prepareToWrite()
    try bitmaps?.record(range)
    if !hasZeroClusters, below == .mayHaveData { return 0 }
    let clusterSize = UInt64(clusterSize)
    guard range.offset.rawValue % clusterSize == 0 else { return 0 }
    // A cluster that is cut by the end of the disk is whole all the same.
    let isTail = range.end.rawValue == virtualSize
    let whole =
      isTail ? range.end.roundedUp(to: clusterSize) : range.end.roundedDown(to: clusterSize)
    guard whole > range.offset else { return 0 }
    let clusters = range.offset.rawValue / clusterSize..<whole.rawValue / clusterSize
    _ = try makeZero(clusters, .zero(mode, below))
    return min(whole.rawValue, range.end.rawValue) - range.offset.rawValue
  }

  /// Changes clusters slice by slice, and gives how many bytes of the disk were changed.
  private func makeZero(
    _ clusters: Range<UInt64>, _ change: MetadataState.ZeroChange
  ) throws(ImageError) -> UInt64 {
    var first = clusters.lowerBound
    var changedBytes: UInt64 = 0
    while first < clusters.upperBound {
      let done = try ask { $0.makeZero(first..<clusters.upperBound, change) }
      changedBytes += done.changedBytes
      first += UInt64(done.seen)
    }
    return changedBytes
  }

  // MARK: - Tickets

  private func ticket(_ reservation: Reservation, host: UInt64) -> WriteTicket {
    let clusterSize = UInt64(clusterSize)
    let guest = GuestRange(
      offset: GuestOffset(reservation.firstCluster * clusterSize),
      length: UInt64(reservation.count) * clusterSize)
    return WriteTicket(owner: self, reservation: reservation, guest: guest, host: HostOffset(host))
  }

  private func giveHome(to reservation: Reservation) throws(ImageError) -> WriteTicket {
    let run: Range<UInt64>
    do { run = try claim(upTo: reservation.count) } catch {
      state.change { _ = $0.end(reservation) }
      throw error
    }
    let kept =
      run.count == reservation.count
      ? reservation : state.change { $0.shorten(reservation, to: run.count) }
    return ticket(kept, host: run.lowerBound << UInt64(geometry.clusterBits))
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
    if reservation.isClaimed {
      let first = geometry.clusterIndex(containing: host.rawValue)
      allocator.giveBack(first..<first + UInt64(reservation.count))
    }
    state.change { _ = $0.end(reservation) }
  }

  func claim(upTo count: Int) throws(ImageError) -> Range<UInt64> {
    try allocator.claim(upTo: count, isInUse: holdsTable)
  }

  /// Claims neighbouring clusters for a structure that has to be in one piece.
  func claimRun(of count: Int) throws(ImageError) -> Range<UInt64> {
    try allocator.claimRun(of: count, isInUse: holdsTable)
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
