internal import BlockIO
internal import HostSystem
internal import Qcow2Format

// Counting: who uses which host cluster.

extension CheckRun {
  /// Counts an L1 table and remembers the L2 tables that it leads to.
  mutating func countL1(at offset: UInt64, _ size: Int, isActive: Bool) throws(ImageError) {
    guard size > 0 else { return }
    let isInFile = reference(offset, UInt64(size) * 8)
    guard offset < fileLength else { return }
    // Of a table that leaves the file, QEMU follows what is there.
    let count = min(UInt64(size), (fileLength - offset) / 8)
    let entries = try readEntries(Int(count), at: offset)
    l1Tables.append(
      L1Table(
        offset: offset, count: entries.count, entries: isActive ? entries : [], isActive: isActive,
        isInFile: isInFile))
    for raw in entries where raw != 0 {
      let entry = L1Entry(rawValue: raw)
      let table = entry.tableOffset
      if entry.hasReservedBits { report.addMendableEntry(.l1Entry(raw, .reservedBits)) }
      if geometry.offsetInCluster(table) != 0 {
        report.addBrokenEntry(.l1Entry(raw, .misaligned))
      }
      if table == 0 {
        report.mendableEntries += 1
        report.hasBareMarks = true
        if ignoresBareMarks { continue }
      }
      guard reference(table, UInt64(geometry.clusterSize)) else { continue }
      guard tables[table] != nil || canFollow(table) else { continue }
      tables[table, default: TableUse()].all += 1
      if isActive { tables[table, default: TableUse()].active += 1 }
    }
  }

  /// Tables that are not aligned are as many as a hostile image likes; so only some are followed.
  private mutating func canFollow(_ table: UInt64) -> Bool {
    if geometry.offsetInCluster(table) == 0 { return true }
    misalignedTables += 1
    if misalignedTables <= Self.misalignedTableLimit { return true }
    report.addUnknownReferences(.tooManyMisalignedTables(limit: Self.misalignedTableLimit))
    return false
  }

  private static let misalignedTableLimit = 256

  /// Counts what all L2 tables refer to.
  mutating func countTables() throws(ImageError) {
    for (done, (offset, use)) in tables.sorted(by: { $0.key < $1.key }).enumerated() {
      try countTable(offset, use)
      // The other half of the work is the refcounts.
      progress(done, 2 * tables.count)
    }
  }

  /// Counts what an L2 table refers to, as often as the table itself is in use.
  private mutating func countTable(_ offset: UInt64, _ use: TableUse) throws(ImageError) {
    let bytes = try readBytes(geometry.clusterSize, at: offset)
    // Where the next cluster would go on; QEMU begins anew with each table.
    var next: UInt64?
    bytes.withBytes { bytes in
      for index in 0..<form.entriesPerTable {
        let entry = form.entry(bytes, index)
        if !entry.isEmpty { count(entry, use, &next) }
      }
    }
  }

  private mutating func count(_ entry: CheckedEntry, _ use: TableUse, _ next: inout UInt64?) {
    let active = UInt64(use.active)
    let kind = form.kind(entry)
    let faults = form.faults(of: entry)
    if !faults.isEmpty {
      // What is still wrong after mending is what cannot be mended.
      let stays = Set(form.faults(of: form.mended(entry)))
      for fault in faults {
        let finding = CheckFinding.l2Entry(entry.raw.rawValue, bitmap: entry.bitmap, reason: fault)
        if stays.contains(fault) {
          report.addBrokenEntry(finding, times: use.all)
        } else {
          report.addMendableEntry(finding, times: use.all)
        }
      }
    }
    switch kind {
    case .unallocated, .zero: return
    case .compressed:
      if form.hasDataFile || entry.bitmap != 0 { return }
      let location = CompressedLocation(entry: entry.raw, clusterBits: geometry.clusterBits)
      reference(location.hostOffset, UInt64(location.byteCount), times: use.all)
      report.allocatedClusters += active
      report.compressedClusters += active
      // No two compressed clusters are read as one.
      report.fragmentedClusters += active
    case .normal, .zeroAllocated:
      let host = entry.raw.hostOffset
      report.allocatedClusters += active
      if let next, next != host { report.fragmentedClusters += active }
      next = host + UInt64(geometry.clusterSize)
      // A data file has no refcounts.
      if form.hasDataFile { return }
      reference(host, UInt64(geometry.clusterSize), times: use.all)
      let cluster = geometry.clusterIndex(containing: host)
      if use.active > 0, cluster >= clusterCount, farClusters.count < Self.farClusterLimit {
        farClusters.insert(cluster)
      }
    }
  }

  /// How many clusters behind the file are remembered; the marks of others count as wrong.
  private static let farClusterLimit = 1 << 16

  // MARK: - Snapshots

  /// Counts the snapshot directory and the L1 tables of all snapshots.
  mutating func countSnapshots() throws(ImageError) {
    guard header.snapshotCount > 0 else { return }
    if form.hasDataFile {
      report.addBrokenEntry(.snapshotsWithDataFile(count: header.snapshotCount))
    }
    let offset = header.snapshotsOffset
    // What lies behind the end of the file reads as entries without anything.
    let inFile = offset < fileLength ? fileLength - offset : 0
    let wanted = inFile + UInt64(header.snapshotCount * SnapshotEntry.fixedByteCount)
    let length = min(wanted, UInt64(SnapshotEntry.maximumDirectoryBytes))
    let bytes = try readBytes(Int(length), at: offset)
    let snapshots: [SnapshotEntry]
    do {
      // The array outlives the call.
      snapshots = try unsafe SnapshotEntry.parseDirectory(
        bytes.span.bytes, count: header.snapshotCount, version: geometry.version)
    } catch {
      report.addUnknownReferences(.snapshotDirectory(error))
      return
    }
    for snapshot in snapshots {
      if snapshot.isIncomplete { report.addIncompleteSnapshot(id: snapshot.id) }
      guard geometry.offsetInCluster(snapshot.l1TableOffset) == 0 else {
        report.addBrokenEntry(.snapshot(id: snapshot.id, reason: "its L1 table is not aligned"))
        continue
      }
      guard snapshot.l1Size <= Geometry.maximumL1TableBytes / 8 else {
        report.addBrokenEntry(.snapshot(id: snapshot.id, reason: "its L1 table is too large"))
        continue
      }
      try countL1(at: snapshot.l1TableOffset, snapshot.l1Size, isActive: false)
    }
    reference(offset, UInt64(snapshots.reduce(0) { $0 + $1.encodedByteCount }))
  }

  // MARK: - Encryption

  /// Counts the clusters of the LUKS header.
  mutating func countEncryptionHeader() {
    guard header.encryption == .luks else { return }
    let item = header.extensions.last { $0.type == HeaderExtension.encryptionType }
    guard let item, item.data.count == 16 else {
      report.addUnknownReferences(.encryptionHeader(reason: "the header does not say where it is"))
      return
    }
    reference(BigEndian.uint64(item.data, at: 0), BigEndian.uint64(item.data, at: 8))
  }
}

extension L2Form {
  /// The entry at `index` of a table.
  func entry(_ table: RawSpan, _ index: Int) -> CheckedEntry {
    let offset = index * entryBytes
    return CheckedEntry(
      raw: L2Entry(rawValue: BigEndian.uint64(table, at: offset)),
      bitmap: hasSubclusters ? BigEndian.uint64(table, at: offset + 8) : 0)
  }
}
