import Testing

@testable import Qcow2Format

@Suite("Geometry", .tags(.format))
struct GeometryTests {
  @Test("cluster bits are taken from 9 to 21", arguments: [8, 9, 16, 21, 22, -1, 64])
  func clusterBits(_ bits: Int) {
    let made = try? Geometry(version: 3, clusterBits: bits, refcountOrder: 4, virtualSize: 512)
    #expect((made != nil) == (9...21).contains(bits))
  }

  @Test(
    "refcount orders are 0 to 6, and only 4 in version 2",
    arguments: [2, 3], [-1, 0, 3, 4, 5, 6, 7])
  func refcountOrder(version: Int, order: Int) {
    let made = try? Geometry(
      version: version, clusterBits: 16, refcountOrder: order, virtualSize: 0)
    #expect((made != nil) == (version == 2 ? order == 4 : (0...6).contains(order)))
  }

  @Test("versions other than 2 and 3 are refused", arguments: [0, 1, 4, -1])
  func version(_ version: Int) {
    #expect(throws: FormatError.self) {
      try Geometry(version: version, clusterBits: 16, refcountOrder: 4, virtualSize: 0)
    }
  }

  @Test("the largest disk is what an L1 table of 32 MiB maps", arguments: 9...21)
  func largestDisk(bits: Int) throws {
    let largest = UInt64(4 << 20) << UInt64(2 * bits - 3)
    let geometry = try Geometry(
      version: 3, clusterBits: bits, refcountOrder: 4, virtualSize: largest)
    #expect(geometry.l1EntriesNeeded == 4 << 20)
    #expect(throws: FormatError.self) {
      try Geometry(version: 3, clusterBits: bits, refcountOrder: 4, virtualSize: largest + 1)
    }
  }

  @Test("the size is rounded down to 512 as QEMU does")
  func rounding() throws {
    let geometry = try Geometry(
      version: 3, clusterBits: 16, refcountOrder: 4, virtualSize: 1_048_476)
    #expect(geometry.virtualSize == 1_048_064)
  }

  @Test("an offset falls into one L1 entry, L2 entry and place in its cluster", arguments: 9...21)
  func indexes(bits: Int) throws {
    let geometry = try Geometry(
      version: 3, clusterBits: bits, refcountOrder: 4, virtualSize: 1 << 27)
    var generator = SeededGenerator.announced("geometry")
    for _ in 0..<200 {
      let offset = UInt64.random(in: 0..<(1 << 27), using: &generator)
      let l1 = UInt64(geometry.l1Index(offset)) * geometry.bytesPerL2Table
      let l2 = UInt64(geometry.l2Index(offset)) * UInt64(geometry.clusterSize)
      #expect(l1 + l2 + UInt64(geometry.offsetInCluster(offset)) == offset)
      #expect(geometry.l1Index(offset) < geometry.l1EntriesNeeded)
    }
  }

  @Test(
    "a refcount of n bits goes to 2^n - 1",
    arguments: zip(0...6, [1, 3, 15, 255, 65535, 0xffff_ffff, UInt64.max] as [UInt64]))
  func maximumRefcount(order: Int, maximum: UInt64) throws {
    let geometry = try Geometry(
      version: 3, clusterBits: 16, refcountOrder: order, virtualSize: 0)
    #expect(geometry.maximumRefcount == maximum)
    #expect(geometry.refcountsPerBlock << order == 65536 * 8)
  }
}
