import Testing

@testable import Qcow2Format

@Suite("Table entries", .tags(.format))
struct TableEntriesTests {
  func geometry(_ bits: Int = 16, version: Int = 3) throws(FormatError) -> Geometry {
    try Geometry(version: version, clusterBits: bits, refcountOrder: 4, virtualSize: 1 << 24)
  }

  @Test("an L1 entry says where its table is, or what is wrong with it")
  func l1() throws {
    let geometry = try geometry()
    let entry = L1Entry(tableOffset: 0x50000, copied: true)
    #expect(entry.rawValue == 0x8000_0000_0005_0000)
    #expect(entry.isCopied && !entry.hasReservedBits)
    #expect(try entry.table(in: geometry) == 0x50000)
    #expect(try L1Entry.empty.table(in: geometry) == nil)
    for bad: UInt64 in [1, 256, 1 << 56, 1 << 62, 0x50200] {
      #expect(throws: FormatError.self) { try L1Entry(rawValue: bad).table(in: geometry) }
    }
    #expect(try L1Entry(rawValue: 1 << 55).table(in: geometry) == 1 << 55)
  }

  @Test("a refcount table entry says where its block is, or what is wrong with it")
  func refcountTable() throws {
    let geometry = try geometry()
    #expect(try RefcountTableEntry(blockOffset: 0x20000).block(in: geometry) == 0x20000)
    #expect(try RefcountTableEntry.empty.block(in: geometry) == nil)
    for bad: UInt64 in [1, 0x20001, 0x20200, 1 << 63, UInt64.max & ~65535] {
      #expect(throws: FormatError.self) {
        try RefcountTableEntry(rawValue: bad).block(in: geometry)
      }
    }
    #expect(try RefcountTableEntry(rawValue: 1 << 62).block(in: geometry) == 1 << 62)
  }

  @Test("the zero flag does not exist in version 2")
  func zeroFlagInVersion2() throws {
    let geometry = try geometry(version: 2)
    #expect(throws: FormatError.self) { try L2Entry(rawValue: 1).meaning(geometry) }
    #expect(throws: FormatError.self) { try L2Entry(rawValue: 0x70001).meaning(geometry) }
  }

  @Test(
    "an L2 entry with reserved bits or an unaligned cluster is corrupt",
    arguments: [0x2, 0x100, 1 << 56, 1 << 61, 0x70200, 0x8000_0000_0000_8000] as [UInt64])
  func l2Corrupt(bits: UInt64) throws {
    let geometry = try geometry()
    #expect(throws: FormatError.self) { try L2Entry(rawValue: bits).meaning(geometry) }
  }

  @Test("a compressed entry names its bytes at every cluster size", arguments: 9...21)
  func compressed(bits: Int) throws {
    let geometry = try geometry(bits)
    let shift = UInt64(70 - bits)
    let sectors: UInt64 = bits == 9 ? 1 : 1 << UInt64(bits - 9)
    let entry = L2Entry(rawValue: 1 << 62 | sectors << shift | 0x12345)
    let expected = CompressedLocation(
      hostOffset: 0x12345, byteCount: (Int(sectors) + 1) * 512 - 0x145)
    #expect(try entry.meaning(geometry) == .compressed(expected))
    #expect(!entry.isCopied)
  }

  @Test("a compressed stream touches each host cluster from its first to its last byte")
  func hostClusters() {
    let location = CompressedLocation(hostOffset: 65536 + 65000, byteCount: 536)
    #expect(location.hostClusters(clusterBits: 16) == 1..<2)
    let longer = CompressedLocation(hostOffset: 65536 + 65000, byteCount: 537)
    #expect(longer.hostClusters(clusterBits: 16) == 1..<3)
  }

  @Test("no bits of an entry stop the program", arguments: 9...21)
  func anyBits(bits: Int) throws {
    var generator = SeededGenerator.announced("entries")
    let geometry = try geometry(bits)
    for _ in 0..<2000 {
      let raw = generator.next() | (Bool.random(using: &generator) ? 1 << 62 : 0)
      if case .compressed(let location)? = try? L2Entry(rawValue: raw).meaning(geometry) {
        #expect((1...2 * geometry.clusterSize).contains(location.byteCount))
        #expect(!location.hostClusters(clusterBits: bits).isEmpty)
      }
      _ = try? L1Entry(rawValue: raw).table(in: geometry)
      _ = try? RefcountTableEntry(rawValue: raw).block(in: geometry)
    }
    let all = L2Entry(rawValue: .max)
    guard case .compressed(let location) = try all.meaning(geometry) else {
      Issue.record("all bits set is a compressed entry")
      return
    }
    #expect(location.hostOffset < 1 << 61)
  }
}
