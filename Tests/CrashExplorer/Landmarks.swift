import BlockIO
import HostSystem
import Qcow2Format
import TestSupport

/// Where the structures of an image lie, so that a write can be told by what it changes.
struct Landmarks: Sendable {
  private enum Part: String {
    case refcountTable = "refcount table"
    case refcountBlock = "refcount block"
    case l1 = "L1 table"
    case l2 = "L2 table"
    case snapshots = "snapshot tables"
    case bitmaps = "bitmaps"
    case data = "data in place"
    case compressed = "compressed data"
  }

  private var path = ""
  private var dataPath: String?
  private var geometry: Geometry?
  private var header: ImageHeader?
  private var parts: [UInt64: Part] = [:]
  private var l1: [UInt64] = []
  private var content = SparseBytes()

  /// Nothing is known: a raw file.
  init() {}

  /// Looks at an image as a reader sees it now.
  init(_ disk: SimulatedDisk?, path: String) {
    self.path = path
    guard let disk else { return }
    content = disk.snapshot
    guard let header = try? ImageHeader.parse(content.bytes(0, 65536).rawSpan) else { return }
    let geometry = header.geometry
    self.header = header
    self.geometry = geometry
    dataPath = header.dataFile.map { "/" + $0 }
    mark(
      header.refcountTableOffset, header.refcountTableClusters * geometry.clusterSize,
      .refcountTable)
    for entry in entries(
      header.refcountTableOffset, header.refcountTableClusters * geometry.clusterSize / 8)
    where entry != 0 { mark(entry, 1, .refcountBlock) }
    if header.snapshotCount > 0 { markSnapshots(header) }
    if let place = try? header.bitmapDirectory() { mark(place.offset, place.byteCount, .bitmaps) }
    l1 = entries(header.l1TableOffset, header.l1Size)
    mark(header.l1TableOffset, header.l1Size * 8, .l1)
    for entry in l1 { markTable(L1Entry(rawValue: entry).tableOffset, .l2) }
  }

  private func entries(_ offset: UInt64, _ count: Int) -> [UInt64] {
    let bytes = content.bytes(offset, count * 8)
    return (0..<count).map { BigEndian.uint64(bytes, at: $0 * 8) }
  }

  private mutating func mark(_ offset: UInt64, _ count: Int, _ part: Part) {
    guard let geometry, count > 0 else { return }
    for cluster in geometry.clusterIndex(
      containing: offset)...geometry.clusterIndex(containing: offset + UInt64(count - 1))
    { parts[cluster] = part }
  }

  private mutating func markTable(_ table: UInt64, _ part: Part) {
    guard let geometry, table != 0 else { return }
    mark(table, 1, part)
    let words = entries(table, geometry.clusterSize / 8)
    for place in stride(from: 0, to: words.count, by: geometry.wordsPerL2Entry) {
      let entry = L2Entry(rawValue: words[place])
      if entry.isCompressed || entry.hostOffset == 0 { continue }
      parts[geometry.clusterIndex(containing: entry.hostOffset)] = .data
    }
  }

  private mutating func markSnapshots(_ header: ImageHeader) {
    let bytes = content.bytes(header.snapshotsOffset, 4096)
    guard
      let entries = try? SnapshotEntry.parseDirectory(
        bytes.rawSpan, count: header.snapshotCount, version: header.geometry.version)
    else { return }
    mark(header.snapshotsOffset, 1, .snapshots)
    for entry in entries {
      mark(entry.l1TableOffset, entry.l1Size * 8, .snapshots)
      for raw in self.entries(entry.l1TableOffset, entry.l1Size) {
        markTable(L1Entry(rawValue: raw).tableOffset, .snapshots)
      }
    }
  }

  /// What a change of the directory or of a file touches.
  func name(of change: DiskChange) -> String {
    switch change.kind {
    case .name: return change.path.hasSuffix(".chainfs-job") ? "record renamed" : "a name"
    case .flushNames: return "flush of names"
    case .flush: return change.path.contains(".chainfs-job") ? "flush of record" : "flush"
    case .resize: return "length"
    case .write, .zero, .discard: break
    }
    if change.path.contains(".chainfs-job") { return "record" }
    if change.path == dataPath { return "data file" }
    guard change.path == path, let geometry else {
      return change.path == path ? "raw file" : "another image"
    }
    if change.offset < UInt64(geometry.clusterSize) { return headerName(change) }
    let cluster = geometry.clusterIndex(containing: change.offset)
    if let part = parts[cluster] { return part.rawValue }
    if case .write(.metadata) = change.kind { return "new table" }
    return "new data"
  }

  private func headerName(_ change: DiskChange) -> String {
    switch (change.offset, change.length) {
    case (48, 12): "header: refcount table"
    case (72, 8): "header: feature bits"
    case (88, 8): "header: autoclear bits"
    default: "header"
    }
  }

  /// What the image has where a guest writes.
  func name(at offset: UInt64) -> String {
    guard let geometry else { return "raw" }
    let index = geometry.l1Index(offset)
    guard index < l1.count else { return "nothing" }
    let table = L1Entry(rawValue: l1[index]).tableOffset
    guard table != 0 else { return "no table" }
    let place = geometry.l2Index(offset) * geometry.wordsPerL2Entry
    let entry = L2Entry(rawValue: entries(table + UInt64(place * 8), 1)[0])
    if entry.isCompressed { return "compressed" }
    if entry.hostOffset == 0 { return entry.rawValue & 1 == 1 ? "zero cluster" : "unallocated" }
    return entry.isCopied ? "own cluster" : "shared cluster"
  }
}
