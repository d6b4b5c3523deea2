import BlockIO
import HostSystem
import ImageDriver
import TestSupport
import Testing

@Suite("A refcount table that lies")
struct HostileRefcountTableTests {
  // The builder's layout: header, refcount table, refcount block, L1 table, a cluster of 64 KiB each.
  static let cluster: UInt64 = 64 << 10
  static let tables: [[UInt64]] = [
    [2 * cluster | 1], [2 * cluster + 512], [cluster], [3 * cluster], [1 << 63], [511],
    [2 * cluster, 2 * cluster], [200 * cluster], [.max],
  ]

  @Test("makes a write fail before a byte but the header's marks has changed", arguments: tables)
  func refused(_ entries: [UInt64]) throws {
    let storage = MemoryStorage()
    try ImageBuilder.create(on: storage, .init(virtualSize: 1 << 20))
    for (index, entry) in entries.enumerated() {
      let bytes = (0..<8).map { UInt8(truncatingIfNeeded: entry >> UInt64(56 - 8 * $0)) }
      try storage.put(bytes, at: Self.cluster + UInt64(index * 8))
    }
    let count = Int(try storage.size())
    var before = try storage.bytes(at: 0, count: count)
    let image = try Qcow2Image(storage: storage)
    #expect(throws: ImageError.self) {
      _ = try image.beginWrite(GuestRange(offset: .zero, length: 512))
    }
    #expect(try storage.size() == UInt64(count))
    before[79] = 3
    #expect(try storage.bytes(at: 0, count: count) == before)
  }
}
