import HostSystem
import Testing

@testable import Chain

@Suite("Growing a disk", .enabled(if: Workbench.hasTool("qemu-img")))
struct DiskGrowTests {
  @Test(
    "a larger disk keeps its bytes, reads zero beyond, and hides the base's tail",
    arguments: [512, 4096, 65536])
  func grows(clusterSize: Int) throws {
    let bench = try Workbench()
    try bench.qemuImg("create", "-f", "qcow2", "base", "8M")
    try bench.qemuIO("base", ["write -P 7 0 8M"])
    try bench.qemuImg(
      "create", "-f", "qcow2", "-o", "cluster_size=\(clusterSize)", "-b", "base", "-F", "qcow2",
      "top", "1000448")
    let disk = try Disk.open(
      DeviceConfiguration(
        name: "vda", image: .qcow2(path: bench.path("top")), isGrowable: true))
    try disk.put([1, 2, 3], at: 500_000)
    var model = try disk.allBytes()
    // The second step needs more L1 entries than a cluster of 512 bytes holds.
    for size in [1_100_288, 6_000_128] {
      try disk.grow(to: UInt64(size))
      model.append(contentsOf: repeatElement(0, count: size - model.count))
      #expect(disk.virtualSize == size)
      #expect(firstDifference(try disk.allBytes(), model) == nil)
      try disk.put([9], at: UInt64(size - 1))
      model[size - 1] = 9
      #expect(try disk.layers().first?.virtualSize == UInt64(size))
    }
    for (size, kind) in [(512, .notPermitted), (6_000_129, .invalid)] as [(UInt64, FailureKind)] {
      do {
        try disk.grow(to: size)
        Issue.record("it became \(size) bytes large")
      } catch {
        #expect(error.kind == kind)
      }
    }
    try disk.close()
    try bench.expectClean(bench.path("top"))
    #expect(firstDifference(try bench.flatBytes(bench.path("top")), model) == nil)
  }

  @Test("a raw disk grows with its file, and a fixed one does not")
  func raw() throws {
    let bench = try Workbench()
    try bench.qemuImg("create", "-f", "raw", "disk", "1M")
    for isGrowable in [false, true] {
      let disk = try Disk.open(
        DeviceConfiguration(
          name: "vda", image: .raw(path: bench.path("disk")), isGrowable: isGrowable))
      if isGrowable {
        try disk.grow(to: 2 << 20)
        try disk.put([1], at: (2 << 20) - 1)
      } else {
        #expect(throws: ChainError.self) { try disk.grow(to: 2 << 20) }
      }
      try disk.close()
    }
    #expect(try fileBytes(bench.path("disk")).count == 2 << 20)
  }
}
