// What the image knows in memory, and the questions that are answered from it.
//
// A question never does I/O. It is answered, or names the slice that has to be read first, or says
// that somebody else is at work on the same clusters; the image then does what is needed, without the
// lock, and asks again.

internal import HostSystem
internal import Qcow2Format

/// The answer to a question about tables.
enum Lookup<Value: Sendable>: Sendable {
  case found(Value)
  /// This slice has to be read from here; nobody reads it yet.
  case needsSlice(UInt64, at: UInt64)
  /// The L2 table of this L1 index has to be made, or copied, before entries change.
  case needsTable(Int)
  /// Somebody else reads the slice, makes the table or writes the cluster. Ask again later.
  case busy
  /// An entry breaks the format.
  case broken(FormatError)
}

/// What a write meets at its first cluster.
enum WritePlan: Sendable {
  /// Data that only the guest's cluster uses.
  case inPlace(UInt64, length: UInt64)
  /// Reserved clusters that need a home.
  case reserved(Reservation)
  /// Reserved clusters that have a home already, at this place.
  case reservedInPlace(Reservation, host: UInt64)
  /// No cluster of the range is unallocated.
  case nothing
}

/// The tables of an image in memory. Lives in the image's monitor.
struct MetadataState: Sendable {
  let geometry: Geometry
  var l1: [UInt64] = []
  var isL1Loaded = false
  /// Sectors of the L1 table that are newer than the disk.
  var dirtyL1Sectors: Set<Int> = []
  var cache: SliceCache
  /// Guest clusters that one slice maps.
  let clustersPerSlice: Int
  /// Slices that a thread is reading.
  var loadingSlices: Set<UInt64> = []
  /// L1 indexes whose table a thread is making.
  var tablesInMaking: Set<Int> = []
  /// Guest clusters that tickets hold; a handful, one a thread.
  var reservations: [Reservation] = []
  /// Host clusters that memory points to no more, while the disk may.
  var dropped: [HostCluster] = []
  /// Host clusters that the disk points to no more, while a reader may be there still.
  var freed: [HostCluster] = []
  /// Entries of snapshots' tables, by their place in the file, that are newer than the disk.
  var snapshotEntries: [UInt64: UInt64] = [:]
  /// Moves whenever something ends that others wait for.
  private(set) var generation: UInt64 = 0

  /// A host cluster that lost one reference; `isData` if its bytes may be discarded then.
  struct HostCluster: Sendable {
    var index: UInt64
    var isData: Bool
  }

  init(geometry: Geometry, cacheBytes: Int) {
    self.geometry = geometry
    cache = SliceCache(
      wordsPerSlice: min(geometry.clusterSize, 4096) / 8, byteCount: cacheBytes)
    clustersPerSlice = cache.wordsPerSlice / geometry.wordsPerL2Entry
  }

  /// A place in a slice, or why there is none.
  enum Place {
    /// There is no L2 table.
    case noTable
    case slot(Int, position: Int)
    case needsSlice(UInt64, at: UInt64)
    case busy
    case broken(FormatError)
  }

  /// The slice that maps a guest cluster.
  func slice(of cluster: UInt64) -> UInt64 { cluster / UInt64(clustersPerSlice) }

  /// The host offset of a slice in its table.
  func sliceOffset(_ slice: UInt64, table: UInt64) -> UInt64 {
    let slicesPerTable = UInt64(geometry.l2EntriesPerTable / clustersPerSlice)
    return table + slice % slicesPerTable * UInt64(cache.wordsPerSlice * 8)
  }

  /// Somebody reads a slice, makes a table or holds a ticket.
  var isAnyoneAtWork: Bool {
    !loadingSlices.isEmpty || !tablesInMaking.isEmpty || !reservations.isEmpty
  }

  /// Ends the reading of a slice, whether it came in or not.
  mutating func endLoading(_ slice: UInt64) {
    loadingSlices.remove(slice)
    generation += 1
  }

  /// Ends the making of a table, whether there is one now or not.
  mutating func endMaking(_ index: Int) {
    tablesInMaking.remove(index)
    generation += 1
  }

  /// Says that a reservation changed or ended.
  mutating func noteReservationChange() { generation += 1 }

  /// Finds the entry of a guest cluster in memory.
  mutating func place(of cluster: UInt64) -> Place {
    let slice = slice(of: cluster)
    let position = Int(cluster % UInt64(clustersPerSlice))
    if let slot = cache.slot(of: slice) { return .slot(slot, position: position) }
    let table: UInt64?
    do { table = try l1Entry(of: cluster).table(in: geometry) } catch { return .broken(error) }
    guard let table else { return .noTable }
    if loadingSlices.contains(slice) { return .busy }
    return .needsSlice(slice, at: sliceOffset(slice, table: table))
  }

  /// The index in the L1 table for a guest cluster.
  func l1Index(of cluster: UInt64) -> Int { Int(cluster >> UInt64(geometry.l2Bits)) }

  private func l1Entry(of cluster: UInt64) -> L1Entry {
    L1Entry(rawValue: l1[l1Index(of: cluster)])
  }

  /// The first guest cluster behind the L2 table that maps `cluster`.
  func tableEnd(_ cluster: UInt64) -> UInt64 {
    (cluster >> UInt64(geometry.l2Bits) + 1) << UInt64(geometry.l2Bits)
  }

  /// What the entry of a guest cluster says; `slot` is that of its slice.
  func layout(_ slot: Int, of cluster: UInt64) throws(FormatError) -> ClusterLayout {
    let count = geometry.wordsPerL2Entry
    let word = Int(cluster % UInt64(clustersPerSlice)) * count
    let first = cache.word(slot, word)
    let layout = try ClusterLayout(
      first, count == 2 ? cache.word(slot, word + 1) : 0, geometry)
    if geometry.hasDataFile, case .cluster(let offset, _) = layout.host,
      offset != cluster << UInt64(geometry.clusterBits)
    {
      throw .corruptEntry(
        table: "L2", entry: first, reason: "the place in the data file is not the guest offset")
    }
    return layout
  }

  /// Changes the entry of a guest cluster.
  mutating func setLayout(_ slot: Int, of cluster: UInt64, to layout: ClusterLayout) {
    let count = geometry.wordsPerL2Entry
    let word = Int(cluster % UInt64(clustersPerSlice)) * count
    let (first, second) = layout.words(geometry)
    cache.setWord(slot, word, to: first)
    if count == 2 { cache.setWord(slot, word + 1, to: second) }
  }

  func isReserved(_ cluster: UInt64) -> Bool {
    for reservation in reservations where reservation.clusters.contains(cluster) { return true }
    return false
  }

  /// Drops the references of a place that an entry named and does not name any more.
  mutating func drop(_ old: ClusterLayout.Host) {
    switch old {
    case .none: break
    case .cluster(let offset, _):
      // Nobody counts the clusters of a data file.
      if geometry.hasDataFile { break }
      dropped.append(
        HostCluster(index: geometry.clusterIndex(containing: offset), isData: true))
    case .compressed(let location):
      for index in location.hostClusters(clusterBits: geometry.clusterBits) {
        dropped.append(HostCluster(index: index, isData: true))
      }
    }
  }
}
