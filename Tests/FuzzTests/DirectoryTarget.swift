import HostSystem

@testable import Qcow2Format

/// The directories of snapshots and of bitmaps. The first bytes of the input make a geometry and the
/// number of entries, the rest is the directory.
enum DirectoryTarget {
  static func runSnapshots(_ bytes: [UInt8]) throws {
    var input = FuzzInput(bytes)
    guard let geometry = try geometry(&input) else { return }
    let count = Int(input.number16())
    let directory = Array(input.rest)
    let entries = try attempt {
      try SnapshotEntry.parseDirectory(directory.rawSpan, count: count, version: geometry.version)
    }
    guard let entries else { return }
    try claim(entries.count == count, "\(entries.count) snapshots, not \(count)")
    let length = entries.reduce(0) { $0 + $1.encodedByteCount }
    try claim(length < directory.count + 8, "\(length) bytes of a directory of \(directory.count)")
    for entry in entries {
      guard try attempt({ try entry.checkTable(in: geometry) }) != nil else { continue }
      let end = entry.l1TableOffset.addingReportingOverflow(UInt64(entry.l1Size) * 8)
      try claim(!end.overflow, "an L1 table that no file can hold")
    }
  }

  static func runBitmaps(_ bytes: [UInt8]) throws {
    var input = FuzzInput(bytes)
    guard let geometry = try geometry(&input) else { return }
    let place = input.bytes(24)
    _ = try attempt { try BitmapDirectoryPlace(place, in: geometry) }
    let count = Int(input.number16())
    let directory = Array(input.rest)
    let entries = try attempt {
      try BitmapEntry.parseDirectory(directory.rawSpan, count: count, in: geometry)
    }
    guard let entries else { return }
    try claim(entries.count == count, "\(entries.count) bitmaps, not \(count)")
    var end = 0
    for entry in entries {
      try claim(entry.position == end, "an entry at \(entry.position), not \(end)")
      let name = Int(BigEndian.uint16(directory, at: end + 18))
      end += (BitmapEntry.fixedByteCount + entry.extraByteCount + name + 7) & ~7
      try claim(
        BigEndian.uint64(directory, at: entry.position + 8) == entry.sizeAndFlags,
        "table size and flags read otherwise")
    }
    try claim(end == directory.count, "a directory of \(directory.count) bytes ends at \(end)")
  }

  private static func geometry(_ input: inout FuzzInput) throws -> Geometry? {
    let bits = input.byte()
    let size = input.number32()
    return try attempt {
      try Geometry(
        version: bits & 0x80 == 0 ? 3 : 2, clusterBits: Int(bits & 31), refcountOrder: 4,
        virtualSize: UInt64(size) << UInt64(bits >> 5 & 3) * 5)
    }
  }
}
