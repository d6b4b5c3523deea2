internal import BlockIO
internal import HostSystem
internal import Qcow2Format

// Counting: who uses which host cluster.

extension CheckRun {
  /// Counts an L1 table and the L2 tables that it leads to, and gives its entries.
  mutating func countL1(
    at offset: UInt64, _ size: Int, isActive: Bool
  ) throws(ImageError) -> [UInt64] {
    guard size > 0, reference(offset, UInt64(size) * 8) else { return [] }
    let entries = try readEntries(size, at: offset)
    for raw in entries where raw != 0 {
      let entry = L1Entry(rawValue: raw)
      do throws(FormatError) {
        if try entry.table(in: geometry) == nil {
          throw .corruptEntry(table: "L1", entry: raw, reason: "it marks a table that is not there")
        }
      } catch { report.addCorruption(.entry(error)) }
      // Followed all the same, as far as it leads anywhere: what it uses must not look free.
      let table = entry.tableOffset
      guard table != 0, reference(table, UInt64(geometry.clusterSize)),
        geometry.offsetInCluster(table) == 0
      else { continue }
      tables[table, default: TableUse()].all += 1
      if isActive { tables[table, default: TableUse()].active += 1 }
    }
    return entries
  }

  /// Counts what an L2 table refers to, as often as the table itself is in use.
  mutating func countTable(_ offset: UInt64, _ use: TableUse) throws(ImageError) {
    let clusterSize = UInt64(geometry.clusterSize)
    let active = UInt64(use.active)
    // Where the next cluster would go on; QEMU begins anew with each table.
    var next: UInt64?
    for raw in try readEntries(geometry.l2EntriesPerTable, at: offset) where raw != 0 {
      let entry = L2Entry(rawValue: raw)
      var host = entry.hostOffset
      do throws(FormatError) {
        switch try entry.meaning(geometry) {
        case .unallocated, .zero: host = 0
        case .data(let offset, _), .zeroPreallocated(let offset, _): host = offset
        case .compressed(let location):
          if raw >> 63 != 0 { report.addCorruption(.compressedCopied(entry: raw), times: use.all) }
          reference(location.hostOffset, UInt64(location.byteCount), times: use.all)
          report.allocatedClusters += active
          report.compressedClusters += active
          // No two compressed clusters are read as one.
          report.fragmentedClusters += active
          continue
        }
      } catch { report.addCorruption(.entry(error), times: use.all) }
      if host == 0 { continue }
      reference(host, clusterSize, times: use.all)
      report.allocatedClusters += active
      if let next, next != host { report.fragmentedClusters += active }
      next = host + clusterSize
    }
  }

  // MARK: - Snapshots

  /// Counts the snapshot directory and the L1 tables of all snapshots.
  mutating func countSnapshots() throws(ImageError) {
    guard header.snapshotCount > 0 else { return }
    let offset = header.snapshotsOffset
    guard offset < fileLength else {
      report.addError(
        .snapshotDirectory(.truncated(structure: "file", needed: Int(offset), available: 0)))
      return
    }
    let length = min(fileLength - offset, UInt64(SnapshotEntry.maximumDirectoryBytes))
    let bytes = try readBytes(Int(length), at: offset)
    let snapshots: [SnapshotEntry]
    do {
      // The array outlives the call.
      snapshots = try unsafe SnapshotEntry.parseDirectory(
        bytes.span.bytes, count: header.snapshotCount, version: geometry.version)
    } catch {
      report.addError(.snapshotDirectory(error))
      return
    }
    for snapshot in snapshots {
      if snapshot.isIncomplete {
        report.addCorruption(.snapshot(id: snapshot.id, reason: "its entry is incomplete"))
      }
      do throws(FormatError) { try snapshot.checkTable(in: geometry) } catch {
        report.addCorruption(.snapshot(id: snapshot.id, reason: error.description))
        continue
      }
      _ = try countL1(at: snapshot.l1TableOffset, snapshot.l1Size, isActive: false)
    }
    reference(offset, UInt64(snapshots.reduce(0) { $0 + $1.encodedByteCount }))
  }

  // MARK: - Persistent bitmaps

  /// Counts the bitmap directory, tables and clusters, if the header says that they are valid.
  mutating func countBitmaps() throws(ImageError) {
    guard header.autoclearFeatures & Self.bitmapsFeature != 0,
      let item = header.extensions.first(where: { $0.type == HeaderExtension.bitmapsType })
    else { return }
    guard item.data.count >= 24 else { return addBitmapCorruption("the extension is too short") }
    let size = BigEndian.uint64(item.data, at: 8)
    let offset = BigEndian.uint64(item.data, at: 16)
    guard size <= Self.maximumBitmapDirectoryBytes else {
      return addBitmapCorruption("the directory is too long")
    }
    guard reference(offset, size) else { return }
    let directory = try readBytes(Int(size), at: offset)
    var position = 0
    while position < directory.count {
      guard let bitmap = bitmapTable(directory, at: position) else {
        return addBitmapCorruption("directory entry at \(position) is not valid")
      }
      position = bitmap.end
      guard reference(bitmap.offset, UInt64(bitmap.size) * 8) else { continue }
      for entry in try readEntries(bitmap.size, at: bitmap.offset) where entry != 0 {
        let host = L1Entry(rawValue: entry & ~1).tableOffset
        let isValid =
          entry & 0xff00_0000_0000_01fe == 0 && geometry.offsetInCluster(host) == 0
          && (host == 0 || entry & 1 == 0)
        if !isValid {
          addBitmapCorruption("table entry 0x\(String(entry, radix: 16))")
        } else if host != 0 {
          reference(host, UInt64(geometry.clusterSize))
        }
      }
    }
  }

  /// The autoclear bit that says that the bitmaps are valid.
  static let bitmapsFeature: UInt64 = 1
  /// QEMU's limit: 65535 bitmaps of at most a KiB of directory each.
  private static let maximumBitmapDirectoryBytes: UInt64 = 65535 * 1024
  /// QEMU's limit for the clusters of one bitmap.
  private static let maximumBitmapBytes = 512 << 20

  private mutating func addBitmapCorruption(_ reason: String) {
    report.addCorruption(.bitmaps(reason: reason))
  }

  /// The table of the directory entry at `position` and where the next entry is; nil if it breaks the
  /// format. See "Bitmap directory" in qcow2.rst.
  ///
  ///      0  table offset 8   8 table size 4   12 flags 4   16 type 1   17 granularity bits 1
  ///     18  name length 2   20 extra data length 4   24 extra data, name, padding to 8 bytes
  private func bitmapTable(
    _ directory: [UInt8], at position: Int
  ) -> (offset: UInt64, size: Int, end: Int)? {
    guard directory.count - position >= 24 else { return nil }
    let offset = BigEndian.uint64(directory, at: position)
    let size = Int(BigEndian.uint32(directory, at: position + 8))
    let nameLength = Int(BigEndian.uint16(directory, at: position + 18))
    let extraLength = Int(BigEndian.uint32(directory, at: position + 20))
    let end = (position + 24 + extraLength + nameLength + 7) & ~7
    guard end <= directory.count, (1...1023).contains(nameLength), offset != 0,
      geometry.offsetInCluster(offset) == 0, size > 0,
      size <= Self.maximumBitmapBytes >> geometry.clusterBits
    else { return nil }
    return (offset, size, end)
  }
}
