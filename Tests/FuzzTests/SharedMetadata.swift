import HostSystem
import Qcow2Format
import TestSupport

@testable import ImageDriver

/// Whether a cluster of the metadata that is written in place has a second user.
///
/// Counting does not show it: such a cluster has two references and a refcount of two. L2 tables and
/// data are copied then; these are not.
func sharesMetadata(of storage: MemoryStorage) throws -> Bool {
  let header = try ImageHeader.read(from: storage)
  let geometry = header.geometry
  var places = [
    FileArea(offset: 0, byteCount: UInt64(geometry.clusterSize)),
    FileArea(offset: header.l1TableOffset, byteCount: UInt64(header.l1Size * 8)),
  ]
  let tableBytes = header.refcountTableClusters * geometry.clusterSize
  places.append(FileArea(offset: header.refcountTableOffset, byteCount: UInt64(tableBytes)))
  for entry in try storage.readEntries(tableBytes / 8, at: header.refcountTableOffset)
  where entry != 0 { places.append(FileArea(offset: entry, byteCount: 1)) }
  let snapshots = try header.snapshots(in: storage)
  let directoryBytes = snapshots.reduce(0) { $0 + UInt64($1.encodedByteCount) }
  places.append(FileArea(offset: header.snapshotsOffset, byteCount: directoryBytes))
  for entry in snapshots {
    places.append(FileArea(offset: entry.l1TableOffset, byteCount: UInt64(entry.l1Size * 8)))
  }
  let marks = ImageMarks(storage: storage, header: header)
  let allocator = ClusterAllocator(storage: storage, header: header, marks: marks)
  return try places.contains { place in
    try geometry.clusters(of: place).contains { try allocator.references(of: $0) > 1 }
  }
}
