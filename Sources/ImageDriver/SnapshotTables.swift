// The tables of internal snapshots, as a stream has to see and to change them.
//
// Before the layers below go, every snapshot has to get what it reads through them. For a part of the
// disk that one L2 table maps, snapshots that were taken without a write in between lead to one table,
// and those that have none yet are alike as well. Each such group keeps one table:
//
//     snapshot 1 --.                       snapshot 1 --.
//     snapshot 2 ----> table A (2 users)   snapshot 2 ----> table A, its gaps filled
//     snapshot 3 -.                        snapshot 3 -.
//     snapshot 4 ---> none                 snapshot 4 ---> a new table (2 users)
//
// A cluster that is missing in several groups is written once, and counted as often as L1 entries lead
// to it. What a snapshot has already, in whatever form, stays as it is; VM state lies behind the
// snapshot's disk and is never looked at.
//
// Entries that change (of L2 tables that nobody else uses, and of the snapshots' L1 tables) wait in
// memory for the next flush of the image, which writes them last:
//
//     data, refcounts, new tables  -- sync -->  the active tables  -- sync -->  entries  -- sync
//
// A crash before the entries leaves leaks, and each entry arrives whole or not at all. What waits is
// seen by every lookup here, so that nothing is filled twice.

internal import BlockIO
package import HostSystem
internal import Qcow2Format

/// What the image keeps in memory of its snapshots.
struct SnapshotTables: Sendable {
  /// The snapshots, nil before the directory was read.
  var places: [SnapshotPlace]?
  /// A thread fills a part of them.
  var isFilling = false
  /// Fills that were committed.
  var changes: UInt64 = 0
}

/// Snapshots that have one L2 table for a part of the disk, or none of them has one.
package struct SnapshotGroup: Sendable {
  /// Whole clusters that the snapshots do not have, or not all subclusters of, in order; the last may
  /// reach beyond their disks.
  package let missing: [GuestRange]
  /// The snapshots, by their place in the directory.
  let members: [Int]
  /// Their L2 table.
  let table: UInt64?
}

/// The snapshots of an image over a part of the disk.
package struct SnapshotPart: Sendable {
  /// The part, in whole clusters that one L2 table maps.
  package let range: GuestRange
  /// The snapshots whose disks reach there, in groups.
  package let groups: [SnapshotGroup]
}

extension Qcow2Image {
  /// The internal snapshots, oldest first; they stay the same while the image is open.
  package func snapshotPlaces() throws(ImageError) -> [SnapshotPlace] {
    if header.snapshotCount == 0 { return [] }
    if let places = snapshots.withLock({ $0.places }) { return places }
    var places: [SnapshotPlace] = []
    for entry in try header.snapshots(in: storage) {
      places.append(try SnapshotPlace(entry, in: header, path: path))
    }
    let found = places
    snapshots.withLock { $0.places = found }
    return found
  }

  /// Another number after each change of the snapshots' tables.
  ///
  /// Clusters that a change has left are used again only after ``releaseFreed()``. So who asks under the
  /// same protection as readers have, and finds the number that it knows, knows tables that are whole.
  package var snapshotChanges: UInt64 { snapshots.withLock { $0.changes } }

  /// Where the longest disk of a snapshot ends, in whole clusters; 0 without snapshots.
  package func snapshotEnd() throws(ImageError) -> GuestOffset {
    let size = try snapshotPlaces().map(\.diskSize).max() ?? 0
    return GuestOffset(size).roundedUp(to: UInt64(clusterSize))
  }

  /// What the snapshots lack in the start of a range.
  ///
  /// The range starts at a cluster, ends at one, and lies before `snapshotEnd()`.
  package func snapshotPart(_ range: GuestRange) throws(ImageError) -> SnapshotPart {
    let index = geometry.l1Index(range.offset.rawValue)
    let tableEnd = UInt64(index + 1) * geometry.bytesPerL2Table
    let part = range.clamped(toSize: tableEnd)
    // In the order of the directory, so that the same snapshots always come together.
    var members: [(table: UInt64?, members: [Int])] = []
    var known: [UInt64: Int] = [:]
    let places = try snapshotPlaces()
    for (number, place) in places.enumerated() where index < place.l1EntriesNeeded {
      let raw = try snapshotEntries(1, at: place.l1TableOffset + UInt64(index) * 8)[0]
      let table: UInt64?
      do throws(FormatError) { table = try L1Entry(rawValue: raw).table(in: geometry) } catch {
        throw .format(path: path, error)
      }
      // No more than a refcount can hold come together.
      if let group = known[table ?? 0],
        UInt64(members[group].members.count) < geometry.maximumRefcount
      {
        members[group].members.append(number)
      } else {
        known[table ?? 0] = members.count
        members.append((table, [number]))
      }
    }
    var groups: [SnapshotGroup] = []
    for group in members {
      let size = group.members.map { places[$0].diskSize }.max() ?? 0
      let end = GuestOffset(size).roundedUp(to: UInt64(clusterSize))
      let missing = try missing(part.clamped(toSize: end.rawValue), table: group.table)
      groups.append(SnapshotGroup(missing: missing, members: group.members, table: group.table))
    }
    return SnapshotPart(range: part, groups: groups)
  }

  /// The clusters of a range that an L2 table does not have.
  private func missing(_ range: GuestRange, table: UInt64?) throws(ImageError) -> [GuestRange] {
    if range.isEmpty { return [] }
    guard let table else { return [range] }
    var missing: [GuestRange] = []
    let cluster = UInt64(clusterSize)
    var position = range.offset
    while position < range.end {
      let index = geometry.l2Index(position.rawValue)
      let count = min(512, Int((range.end - position) / cluster))
      for layout in try snapshotLayouts(count, in: table, from: index) {
        if layout.unallocated(in: geometry.allSubclusters) != 0 {
          if let last = missing.last, last.end == position {
            missing[missing.count - 1] = GuestRange(from: last.offset, to: position + cluster)
          } else {
            missing.append(GuestRange(offset: position, length: cluster))
          }
        }
        position += cluster
      }
    }
    return missing
  }

  /// What entries of a snapshot's L2 table say, as the next flush leaves them.
  func snapshotLayouts(
    _ count: Int, in table: UInt64, from index: Int
  ) throws(ImageError) -> [ClusterLayout] {
    let perEntry = geometry.wordsPerL2Entry
    let words = try snapshotEntries(count * perEntry, at: table + UInt64(index * perEntry * 8))
    var layouts: [ClusterLayout] = []
    layouts.reserveCapacity(count)
    do throws(FormatError) {
      for place in stride(from: 0, to: words.count, by: perEntry) {
        layouts.append(
          try ClusterLayout(words[place], perEntry == 2 ? words[place + 1] : 0, geometry))
      }
    } catch { throw .format(path: path, error) }
    return layouts
  }

  /// Words of a snapshot's tables, as the next flush leaves them.
  func snapshotEntries(_ count: Int, at offset: UInt64) throws(ImageError) -> [UInt64] {
    // Taken before the read: what is written meanwhile is what was waiting.
    let waiting = state.withLock { $0.snapshotEntries }
    var entries = try storage.readEntries(count, at: offset)
    if !waiting.isEmpty {
      for index in entries.indices {
        if let value = waiting[offset + UInt64(index * 8)] { entries[index] = value }
      }
    }
    return entries
  }
}

extension MetadataState {
  /// The host cluster that the active disk has for a guest cluster, if it has one.
  mutating func hostCluster(of cluster: UInt64) -> Lookup<UInt64?> {
    // A snapshot's disk may be the longer one.
    if cluster >= geometry.guestClusterCount { return .found(nil) }
    switch place(of: cluster) {
    case .noTable: return .found(nil)
    case .slot(let slot, _):
      do throws(FormatError) {
        guard case .cluster(let host, _) = try layout(slot, of: cluster).host else {
          return .found(nil)
        }
        return .found(host)
      } catch { return .broken(error) }
    case .needsSlice(let slice, let place): return .needsSlice(slice, at: place)
    case .busy: return .busy
    case .broken(let error): return .broken(error)
    }
  }

  /// Asks for the active disk to have another table than `table` at an L1 index.
  func leaves(table: UInt64, at index: Int) -> Lookup<Bool> {
    guard index < l1.count, L1Entry(rawValue: l1[index]).tableOffset == table else {
      return .found(true)
    }
    return tablesInMaking.contains(index) ? .busy : .needsTable(index)
  }
}
