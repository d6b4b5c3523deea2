import HostSystem
import Testing

@testable import Chain

@Suite("Reading a disk", .enabled(if: Workbench.hasTool("qemu-img")))
struct DiskReadTests {
  @Test("a chain that QEMU made reads as QEMU reads it", arguments: 0..<24)
  func readsAsQemu(seed: UInt64) throws {
    let chain = try RandomChain(seed: seed, depth: 1 + Int(seed % 6))
    let disk = try Disk.open(
      DeviceConfiguration(name: "vda", image: .qcow2(path: chain.top), isReadOnly: true))
    let expected = try chain.bench.flatBytes(chain.top)
    #expect(firstDifference(try disk.allBytes(), expected) == nil, "seed \(seed)")
    // In odd pieces too: they start and end inside clusters, compressed ones among them.
    var random = SplitMix(state: seed)
    for _ in 0..<50 {
      let start = Int(random.next() % UInt64(expected.count))
      let count = min(expected.count - start, Int(random.next() % 9000))
      let piece = try disk.bytes(at: UInt64(start), count: count)
      #expect(piece == Array(expected[start..<start + count]), "seed \(seed) at \(start)")
    }
    try disk.close()
  }

  @Test("a map of no memory reads the same", arguments: 0..<4)
  func smallMap(seed: UInt64) throws {
    let chain = try RandomChain(seed: seed &+ 77, depth: 4, sizeUnits: 1024)
    let disk = try Disk.open(
      DeviceConfiguration(
        name: "vda", image: .qcow2(path: chain.top), isReadOnly: true, mapCacheBytes: 0))
    #expect(firstDifference(try disk.allBytes(), try chain.bench.flatBytes(chain.top)) == nil)
    #expect(disk.map.bytesUsed < 1 << 20)
    try disk.close()
  }

  @Test("data and holes are found where the chain has them")
  func seek() throws {
    let bench = try Workbench()
    try bench.qemuImg("create", "-f", "qcow2", "base", "1M")
    try bench.qemuIO("base", ["write -P 1 128k 64k", "write -P 1 512k 64k"])
    try bench.qemuImg("create", "-f", "qcow2", "-b", "base", "-F", "qcow2", "top", "1M")
    try bench.qemuIO("top", ["write -z 128k 64k", "write -P 2 832k 128k"])
    let disk = try Disk.open(
      DeviceConfiguration(name: "vda", image: .qcow2(path: bench.path("top")), isReadOnly: true))
    func data(_ offset: UInt64) throws -> UInt64? {
      try disk.nextData(from: GuestOffset(offset << 10))?.rawValue
    }
    func hole(_ offset: UInt64) throws -> UInt64? {
      try disk.nextHole(from: GuestOffset(offset << 10))?.rawValue
    }
    #expect(try data(0) == 512 << 10)
    #expect(try hole(512) == 576 << 10)
    #expect(try data(600) == 832 << 10)
    #expect(try hole(832) == 960 << 10)
    #expect(try data(960) == nil)
    #expect(try hole(0) == 0)
    #expect(try hole(1024) == nil)
    try disk.close()
  }
}
