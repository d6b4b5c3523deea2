import HostSystem
import Testing

@testable import Chain

@Suite("Writing a disk", .enabled(if: Workbench.hasTool("qemu-img")))
struct DiskWriteTests {
  @Test("random writes, zeroes and discards read back, here and in QEMU", arguments: 0..<16)
  func agreesWithModel(seed: UInt64) throws {
    let chain = try RandomChain(
      seed: seed &+ 500, depth: 1 + Int(seed % 4), topCluster: [512, 4096, 65536][Int(seed % 3)])
    var model = try chain.bench.flatBytes(chain.top)
    let lower = try chain.names.dropLast().map { try fileBytes(chain.bench.path($0)) }
    var random = SplitMix(state: seed)
    let detect: [DeviceConfiguration.DetectZeroes] = [.off, .on, .unmap]
    let configuration = DeviceConfiguration(
      name: "vda", image: .qcow2(path: chain.top), discard: seed % 2 == 0 ? .unmap : .ignore,
      detectZeroes: detect[Int(seed % 3)])
    var disk = try Disk.open(configuration)
    for step in 0..<120 {
      let start = Int(random.next() % UInt64(model.count))
      let longest = random.next() % 8 == 0 ? 200_000 : 10_000
      let count = min(model.count - start, 1 + Int(random.next() % UInt64(longest)))
      let range = GuestRange(offset: GuestOffset(UInt64(start)), length: UInt64(count))
      switch random.next() % 8 {
      case 0:
        try disk.writeZeroes(range)
        model.replaceSubrange(start..<start + count, with: repeatElement(0, count: count))
      case 1:
        try disk.discard(range)
        model.replaceSubrange(start..<start + count, with: repeatElement(0, count: count))
      case 2:
        try disk.preallocate(range)
      case 3:
        try disk.flush()
      default:
        let value = UInt8(truncatingIfNeeded: random.next() % 5)
        let bytes = [UInt8](repeating: value, count: count)
        try disk.put(bytes, at: UInt64(start))
        model.replaceSubrange(start..<start + count, with: bytes)
      }
      if step == 60 {
        try disk.close()
        try chain.bench.expectClean(chain.top)
        disk = try Disk.open(configuration)
      }
    }
    #expect(firstDifference(try disk.allBytes(), model) == nil, "seed \(seed)")
    try disk.close()
    try chain.bench.expectClean(chain.top)
    #expect(firstDifference(try chain.bench.flatBytes(chain.top), model) == nil, "seed \(seed)")
    for (name, bytes) in zip(chain.names, lower) {
      #expect(try fileBytes(chain.bench.path(name)) == bytes, "\(name) was changed")
    }
  }

  @Test("a raw image is written in place")
  func raw() throws {
    let bench = try Workbench()
    try bench.qemuImg("create", "-f", "raw", "disk", "1M")
    let disk = try Disk.open(
      DeviceConfiguration(name: "vda", image: .raw(path: bench.path("disk"))))
    try disk.put([1, 2, 3], at: 70_001)
    try disk.discard(GuestRange(offset: GuestOffset(70_002), length: 1))
    #expect(try disk.nextData(from: .zero) != nil)
    try disk.close()
    let bytes = try fileBytes(bench.path("disk"))
    #expect(bytes.count == 1 << 20)
    #expect(Array(bytes[70_000..<70_005]) == [0, 1, 0, 3, 0])
  }

  @Test("a read-only disk refuses every change")
  func readOnly() throws {
    let bench = try Workbench()
    try bench.qemuImg("create", "-f", "qcow2", "top", "1M")
    let disk = try Disk.open(
      DeviceConfiguration(name: "vda", image: .qcow2(path: bench.path("top")), isReadOnly: true))
    let range = GuestRange(offset: .zero, length: 512)
    let changes: [() throws -> Void] = [
      { try disk.put([1], at: 0) }, { try disk.writeZeroes(range) }, { try disk.discard(range) },
      { try disk.preallocate(range) }, { try disk.rebase(to: nil, backingString: "x") },
      { try disk.snapshot(path: bench.path("new")) },
    ]
    for change in changes {
      do {
        try change()
        Issue.record("a change was accepted")
      } catch let error as ChainError {
        #expect(error.kind == .readOnly)
      }
    }
    try disk.close()
  }

  @Test("a closed disk refuses everything and lets the image go")
  func closed() throws {
    let bench = try Workbench()
    try bench.qemuImg("create", "-f", "qcow2", "top", "1M")
    let configuration = DeviceConfiguration(name: "vda", image: .qcow2(path: bench.path("top")))
    let disk = try Disk.open(configuration)
    #expect(throws: ChainError.self) { _ = try Disk.open(configuration) }
    try disk.close()
    #expect(throws: ChainError.self) { _ = try disk.bytes(at: 0, count: 1) }
    try Disk.open(configuration).close()
  }
}
