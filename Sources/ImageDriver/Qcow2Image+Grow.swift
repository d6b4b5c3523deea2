// A larger disk. The header says how large the disk is and where its L1 table lies; all of that is in
// the first sector, so one write changes it as a whole.
//
//     1  all is flushed
//     2  a data file that is long enough, if there is one: the host may refuse, and nothing is claimed
//        yet; tables of persistent bitmaps, which are in use until the disk has its new size; and an L1
//        table that is long enough: the clusters it has, or new ones that hold a copy
//     3  sync
//     4  the first sector, with the new size
//     5  sync
//     6  what a raw data file had behind the disk's end is zero; an L1 table that was replaced is free
//
// A crash before 4 leaves the old size (and perhaps a leak), after it the new one.
//
// L1 entries behind the end of the disk hold the VM state of an internal snapshot that was gone back
// to. It would become bytes of the disk, so the new table, in a new place, is without them; their
// references are given back with 6. The snapshot has its own L1 table and keeps everything.

internal import BlockIO
internal import HostSystem
internal import Qcow2Format

extension Qcow2Image {
  /// Makes the disk larger, and gives the image that serves it from now on; this one is closed.
  ///
  /// The size is a multiple of 512 and not smaller than now. No other call may be in progress. What
  /// lies below may show in the new part: that is the caller's to hide. When it throws, the size is
  /// as before; after a failure at the header itself, all writes are refused.
  package func grown(to size: UInt64) throws(ImageError) -> Qcow2Image {
    precondition(size >= virtualSize && size.isMultiple(of: 512), "a disk only grows, by sectors")
    try prepareToWrite()
    if header.snapshotCount > 0, geometry.version < 3 {
      // Only in version 3 does each snapshot have to say how large its disk was.
      throw .unsupported(
        path: path, feature: "growing a version 2 image that has internal snapshots")
    }
    let needed: Int
    do throws(FormatError) {
      needed = try Geometry(
        version: geometry.version, clusterBits: geometry.clusterBits,
        refcountOrder: geometry.refcountOrder, virtualSize: size,
        hasExtendedL2: geometry.hasExtendedL2, hasDataFile: geometry.hasDataFile
      ).l1EntriesNeeded
    } catch { throw .diskTooLarge(path: path, size: size, clusterSize: clusterSize) }
    try checkBitmaps(for: size)
    // Order: the tables on disk are complete before the L1 table is copied.
    try flush()
    try releaseFreed()
    let dataEnd = try onStorage { () throws(StorageError) in
      hasOwnDataFile ? try data.size() : size
    }
    if dataEnd < size { try onStorage { () throws(StorageError) in try data.truncate(to: size) } }
    try prepareBitmaps(for: size)
    let (table, claimed, references) = try longerL1(needed)
    // Order: the table, then the header that points to it, then the old table is free.
    do throws(ImageError) { try sync() } catch {
      if let claimed { allocator.giveBack(claimed) }
      throw error
    }
    do throws(ImageError) {
      try marks.withHeader { () throws(ImageError) in
        var sector = try storage.readTable(512, at: 0)
        BigEndian.store(size, in: &sector, at: 24)
        BigEndian.store(UInt32(max(needed, header.l1Size)), in: &sector, at: 36)
        BigEndian.store(table, in: &sector, at: 40)
        try storage.writeTable(sector, at: 0)
        try onStorage { () throws(StorageError) in try storage.flush() }
      }
      // Order: bitmaps that fit the new size are called true under the new size only.
      try finishBitmaps(for: size)
      if header.isDataFileRaw, dataEnd > virtualSize {
        // The tables have nothing there, and who reads the file by itself has to find zeroes as well.
        let end = GuestOffset(min(dataEnd, size))
        try emptyDataFile(GuestRange(from: GuestOffset(virtualSize), to: end), .unmap)
      }
      // The new image keeps what it reads of refcounts: nobody else changes them from then on.
      try allocator.close()
      let image = try Qcow2Image(
        storage: storage, data: data, cacheBytes: Self.activeCacheBytes, marks: marks)
      if claimed != nil {
        let old = clusters(ofTableAt: header.l1TableOffset, entries: header.l1Size)
        _ = try image.allocator.release(Array(old) + references)
      }
      return image
    } catch {
      // Whether the disk has the old header or the new one is not known, so no table may change. The
      // locks stay: the guest goes on reading what nobody else may change.
      storage.refuseWrites()
      throw error
    }
  }

  /// An L1 table on disk with at least so many entries, the clusters that it has if it is in a new place,
  /// and those that the entries behind the disk refer to, which it is without.
  private func longerL1(
    _ needed: Int
  ) throws(ImageError) -> (offset: UInt64, claimed: Range<UInt64>?, references: [UInt64]) {
    let old = header.l1TableOffset
    let behind = geometry.l1EntriesNeeded
    let hidden = try storage.readEntries(header.l1Size - behind, at: old + UInt64(behind) * 8)
      .filter { $0 != 0 }
    if needed <= header.l1Size, hidden.isEmpty { return (old, nil, []) }
    let has = clusters(ofTableAt: old, entries: header.l1Size)
    let wants = clusters(ofTableAt: old, entries: max(needed, header.l1Size))
    // A disk of no bytes has no table: its offset is zero, where the header lies.
    if has == wants, !has.isEmpty, hidden.isEmpty {
      // Nobody else uses the rest of a table's last cluster, but nobody promised that it is zero.
      try storage.writeTable(
        [UInt8](repeating: 0, count: (needed - header.l1Size) * 8),
        at: old + UInt64(header.l1Size) * 8)
      return (old, nil, [])
    }
    var table = try storage.readTable(behind * 8, at: old)
    table.append(
      contentsOf: repeatElement(0, count: wants.count * clusterSize - table.count))
    let references = try clusters(under: hidden)
    let run = try claimRun(of: wants.count)
    let offset = run.lowerBound << UInt64(geometry.clusterBits)
    do throws(ImageError) { try storage.writeTable(table, at: offset) } catch {
      allocator.giveBack(run)
      throw error
    }
    return (offset, run, references)
  }

  /// The clusters that L1 entries refer to, one index for each reference.
  private func clusters(under entries: [UInt64]) throws(ImageError) -> [UInt64] {
    var clusters: [UInt64] = []
    for entry in entries {
      let table: UInt64?
      do { table = try L1Entry(rawValue: entry).table(in: geometry) } catch {
        throw .format(path: path, error)
      }
      guard let table else { continue }
      clusters.append(geometry.clusterIndex(containing: table))
      let bytes = try storage.readTable(clusterSize, at: table)
      do { clusters += try self.clusters(inTable: bytes) } catch {
        throw .format(path: path, error)
      }
    }
    return clusters
  }

  private func clusters(inTable bytes: [UInt8]) throws(FormatError) -> [UInt64] {
    var clusters: [UInt64] = []
    for place in stride(from: 0, to: bytes.count, by: bytes.count / geometry.l2EntriesPerTable) {
      let entry = L2Entry(rawValue: BigEndian.uint64(bytes, at: place))
      if entry.isCompressed {
        guard case .compressed(let location) = try entry.meaning(geometry) else { continue }
        clusters += location.hostClusters(clusterBits: geometry.clusterBits)
      } else if entry.hostOffset != 0, !hasOwnDataFile {
        clusters.append(geometry.clusterIndex(containing: entry.hostOffset))
      }
    }
    return clusters
  }

  /// The clusters that a table of 8-byte entries takes.
  func clusters(ofTableAt offset: UInt64, entries: Int) -> Range<UInt64> {
    let first = geometry.clusterIndex(containing: offset)
    return first..<first + UInt64((entries * 8 + clusterSize - 1) / clusterSize)
  }
}
