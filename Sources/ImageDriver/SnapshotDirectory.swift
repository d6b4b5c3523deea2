// The internal snapshots of an image, as the directory in the file lists them.

internal import BlockIO
internal import HostSystem
internal import Qcow2Format

/// An internal snapshot, for people.
package struct InternalSnapshot: Sendable, Equatable {
  /// The unique id, a decimal number as text.
  package var id: String
  /// The name that somebody gave it.
  package var name: String
  /// When it was made, in seconds since 1970.
  package var dateSeconds: UInt32
  /// The part of the date below a second.
  package var dateNanoseconds: UInt32
  /// How long the guest had been running, in nanoseconds.
  package var guestClockNanoseconds: UInt64
  /// The bytes of VM state that were saved with it, 0 for a disk snapshot.
  package var vmStateSize: UInt64
  /// The instructions that the guest had executed; nil if they were not counted.
  package var instructionCount: UInt64?

  init(_ entry: SnapshotEntry) {
    id = entry.id
    name = entry.name
    dateSeconds = entry.dateSeconds
    dateNanoseconds = entry.dateNanoseconds
    guestClockNanoseconds = entry.guestClockNanoseconds
    vmStateSize = entry.vmStateSize
    instructionCount = entry.instructionCount
  }
}

/// Where the tables of a snapshot are, checked.
package struct SnapshotPlace: Sendable, Equatable {
  /// The unique id.
  package var id: String
  /// The name that somebody gave it.
  package var name: String
  var l1TableOffset: UInt64
  /// The L1 entries that map its disk; those behind them lead to VM state.
  var l1EntriesNeeded: Int
  /// The size of its disk.
  package var diskSize: UInt64

  init(_ entry: SnapshotEntry, in header: ImageHeader, path: String) throws(ImageError) {
    let geometry = header.geometry
    do throws(FormatError) { try entry.checkTable(in: geometry) } catch {
      throw .format(path: path, error)
    }
    // At most 2^22 tables of at most 2^39 bytes.
    let reach = UInt64(entry.l1Size) * geometry.bytesPerL2Table
    let size = entry.diskSize ?? min(geometry.virtualSize, reach)
    guard size <= reach else {
      throw .corrupt(
        path: path,
        reason: "the L1 table of snapshot \(entry.id) is too short for its disk of \(size) bytes")
    }
    id = entry.id
    name = entry.name
    l1TableOffset = entry.l1TableOffset
    diskSize = size
    l1EntriesNeeded = Int((size + geometry.bytesPerL2Table - 1) / geometry.bytesPerL2Table)
  }
}

extension ImageHeader {
  // The fixed part, the longest extra data, the longest id and name, padding.
  private static let longestSnapshotEntry =
    SnapshotEntry.fixedByteCount + SnapshotEntry.maximumExtraBytes + 2 * 65535 + 8

  /// Reads the snapshot directory.
  func snapshots(in storage: any BlockStorage) throws(ImageError) -> [SnapshotEntry] {
    if snapshotCount == 0 { return [] }
    let size = try onStorage { () throws(StorageError) in try storage.size() }
    let longest = min(
      SnapshotEntry.maximumDirectoryBytes, snapshotCount * Self.longestSnapshotEntry)
    // A directory behind the end of the file has no bytes, and the parser says so.
    let count = min(size - min(size, snapshotsOffset), UInt64(longest))
    let bytes = try storage.readTable(Int(count), at: snapshotsOffset)
    do throws(FormatError) {
      // The array outlives the call.
      return try unsafe SnapshotEntry.parseDirectory(
        bytes.span.bytes, count: snapshotCount, version: geometry.version)
    } catch { throw .format(path: storage.path, error) }
  }
}
