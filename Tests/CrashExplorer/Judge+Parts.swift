import BlockIO
import Chain
import HostSystem
import ImageDriver
import Qcow2Format
import TestSupport

// MARK: - What lies beside the disk's bytes

extension Judge {
  /// Whoever trusts a bitmap finds in it every granule that changed since it was made.
  func checkBitmaps() throws {
    guard let before = expectation.bitmapsSince, let disk = files.disk(expectation.path) else {
      return
    }
    let content = disk.snapshot
    let header = try ImageHeader.parse(content.bytes(0, 65536).rawSpan)
    guard let place = try header.bitmapDirectory() else { throw Fault("the bitmaps are gone") }
    let directory = content.bytes(place.offset, place.byteCount)
    let entries = try BitmapEntry.parseDirectory(
      directory.rawSpan, count: place.count, in: header.geometry)
    var trusted = entries.filter { $0.flags.contains(.auto) && !$0.flags.contains(.inUse) }
    if trusted.isEmpty { return }
    let now = try readOnlyBytes()
    let size = min(before.count, now.count, expectation.certainSize)
    trusted.sort { $0.granularityBits < $1.granularityBits }
    for entry in trusted {
      let bits = try bits(of: entry, content, header.geometry)
      let granule = 1 << entry.granularityBits
      for start in stride(from: 0, to: size, by: granule) {
        let range = start..<min(start + granule, size)
        if before[range] == now[range] { continue }
        let index = start / granule
        guard index / 8 < bits.count, bits[index / 8] >> UInt8(index % 8) & 1 == 1 else {
          throw Fault("bitmap \(entry.name) claims that granule \(index) never changed")
        }
      }
    }
  }

  private func bits(
    of entry: BitmapEntry, _ content: SparseBytes, _ geometry: Geometry
  ) throws -> [UInt8] {
    let table = content.bytes(entry.tableOffset, entry.tableSize * 8)
    var bits: [UInt8] = []
    for index in 0..<entry.tableSize {
      let raw = BitmapTableEntry(rawValue: BigEndian.uint64(table, at: index * 8))
      if let cluster = try raw.cluster(in: geometry) {
        bits += content.bytes(cluster, geometry.clusterSize)
      } else {
        bits += [UInt8](repeating: raw == .ones ? 0xff : 0, count: geometry.clusterSize)
      }
    }
    return bits
  }

  private func readOnlyBytes() throws -> [UInt8] {
    let disk = try template.open(expectation.path, files.copied(), isReadOnly: true)
    defer { try? disk.close() }
    return try disk.allBytes()
  }

  /// A raw data file reads as the disk does, sector by sector as old or new.
  func checkRawData() throws {
    guard let data = files.disk("/top.data") else { throw Fault("the data file is gone") }
    let bytes = data.snapshot.bytes(0, expectation.history.now.count)
    if let sector = expectation.history.firstFault(bytes, limit: expectation.certainSize) {
      throw Fault("sector \(sector) of the data file holds what it never held")
    }
  }

  /// Whoever knows the unknown feature finds the bytes that it describes, or is told that they changed.
  func checkAutoclear() throws {
    guard let disk = files.disk("/top") else { return }
    if disk.snapshot.bytes(88, 1) == [0x80], try readOnlyBytes() != template.bytes {
      throw Fault("bytes changed under an autoclear bit")
    }
  }

  /// An image that was being made is none, or a sound one; so is a layer that was streamed into.
  func checkOthers() throws {
    for path in files.names where path.hasPrefix("/s") && path != expectation.path {
      guard let disk = files.disk(path), try Qcow2Image.isQcow2(disk) else { continue }
      try template.expectSound(path, files, mayLeak: true, isClosed: false)
    }
    for path in expectation.inner where path != expectation.path {
      try template.expectSound(path, files, mayLeak: true, isClosed: false)
    }
  }

  /// Internal snapshots read as they did when they were made.
  func checkSnapshots() throws {
    if expectation.path != "/top" || expectation.snapshots.isEmpty { return }
    let disk = try template.open("/top", files.copied(), isReadOnly: true)
    let chain = try disk.layers()
    try disk.close()
    var images: [any Image] = []
    let copy = files.copied()
    for layer in chain {
      let storage = try copy.open(layer.path, role: .backing, isReadOnly: true, isLocked: false)
      images.append(
        layer.format == "raw" ? try RawImage(storage: storage) : try Qcow2Image(storage: storage))
    }
    guard let top = images[0] as? Qcow2Image else { return }
    for (name, wanted) in expectation.snapshots.sorted(by: { $0.key < $1.key }) {
      guard let image = try SnapshotImage(named: name, of: top) else {
        throw Fault("snapshot \(name) is gone")
      }
      images[0] = image
      var found = [UInt8](repeating: 0, count: wanted.count)
      try read(images[...], at: 0, into: &found, 0..<found.count)
      if found != wanted { throw Fault("snapshot \(name) reads wrong") }
    }
  }

  /// Reads through a chain of images, the topmost first.
  private func read(
    _ images: ArraySlice<any Image>, at start: Int, into bytes: inout [UInt8], _ range: Range<Int>
  ) throws {
    guard let image = images.first else { return }
    let end = min(range.upperBound, Int(image.virtualSize))
    var place = range.lowerBound
    while place < end {
      let extent = try image.mapping(
        at: GuestOffset(UInt64(place)), upTo: UInt64(end - place))
      let next = place + Int(extent.length)
      switch extent.mapping {
      case .unallocated: try read(images.dropFirst(), at: place, into: &bytes, place..<next)
      case .zero: break
      case .data:
        var part = [UInt8](repeating: 0, count: next - place)
        var span = part.mutableRawSpan
        try image.read(extent.mapping, skip: 0, into: &span)
        bytes.replaceSubrange(place..<next, with: part)
      case .compressed(let compressed):
        var part = [UInt8](repeating: 0, count: next - place)
        var span = part.mutableRawSpan
        try image.read(
          extent.mapping, skip: place - Int(compressed.clusterStart.rawValue), into: &span)
        bytes.replaceSubrange(place..<next, with: part)
      }
      place = next
    }
  }
}
