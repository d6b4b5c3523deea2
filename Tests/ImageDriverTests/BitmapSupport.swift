import BlockIO
import HostSystem
import Qcow2Format
import TestSupport
import Testing

@testable import ImageDriver

/// The bitmaps of an image, read by the driver's own parser.
struct StoredBitmaps {
  let header: ImageHeader
  let entries: [BitmapEntry]
  private let storage: any BlockStorage

  init(_ storage: any BlockStorage) throws {
    self.storage = storage
    header = try ImageHeader.read(from: storage)
    entries = try BitmapDirectory(of: header, in: storage)?.entries ?? []
  }

  func entry(_ name: String) throws -> BitmapEntry {
    try #require(entries.first { $0.name == name }, "no bitmap \(name)")
  }

  func table(_ name: String) throws -> [UInt64] {
    try BitmapDirectory.table(of: entry(name), header.geometry, in: storage)
  }

  /// The set bits of a bitmap.
  func granules(_ name: String) throws -> Set<UInt64> {
    var granules: Set<UInt64> = []
    let clusterSize = header.geometry.clusterSize
    let entry = try entry(name)
    let count = BitmapEntry.bitCount(
      for: header.geometry.virtualSize, granularityBits: entry.granularityBits)
    for (index, raw) in try table(name).enumerated() {
      var bytes = [UInt8](repeating: raw == 1 ? 255 : 0, count: clusterSize)
      if let cluster = try BitmapTableEntry(rawValue: raw).cluster(in: header.geometry) {
        bytes = try storage.bytes(at: cluster, count: clusterSize)
      }
      for (place, byte) in bytes.enumerated() where byte != 0 {
        for bit in 0..<8 where byte & 1 << UInt8(bit) != 0 {
          let granule = UInt64((index * clusterSize + place) * 8 + bit)
          if granule < count { granules.insert(granule) }
        }
      }
    }
    return granules
  }
}

extension QemuBench {
  /// Runs `qemu-img bitmap` on the image.
  func bitmap(_ words: String...) throws {
    try runSuccessfully(["qemu-img", "bitmap"] + words.dropLast() + [path] + words.suffix(1))
  }

  /// The image's bytes.
  func bytes() throws -> SparseBytes {
    let file = try HostFile.open(path, access: .readOnly, locking: .none, role: .backing)
    var bytes = SparseBytes()
    bytes.put(try file.bytes(at: 0, count: Int(file.size())), at: 0)
    return bytes
  }

  func stored() throws -> StoredBitmaps {
    try StoredBitmaps(
      HostFile.open(path, access: .readOnly, locking: .none, role: .backing))
  }
}

@discardableResult
private func runSuccessfully(_ words: [String]) throws -> String {
  let result = try run(words)
  if result.status != 0 { throw BenchFailure(description: "\(words): \(result.errorOutput)") }
  return result.output
}
