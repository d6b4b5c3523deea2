import Foundation
import HostSystem
import Testing

@testable import Chain

@Suite("Growing a disk", .enabled(if: Workbench.hasTool("qemu-img")))
struct DiskGrowTests {
  @Test(
    "a larger disk keeps its bytes, reads zero beyond, and hides the base's tail",
    // A disk of no bytes has no L1 table: the offset of one would be that of the header.
    arguments: [512, 4096, 65536], [1_000_448, 0])
  func grows(clusterSize: Int, size: Int) throws {
    let bench = try Workbench()
    try bench.qemuImg("create", "-f", "qcow2", "base", "8M")
    try bench.qemuIO("base", ["write -P 7 0 8M"])
    try bench.qemuImg(
      "create", "-f", "qcow2", "-o", "cluster_size=\(clusterSize)", "-b", "base", "-F", "qcow2",
      "top", "\(size)")
    let disk = try growable(bench)
    if size > 0 { try disk.put([1, 2, 3], at: 500_000) }
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
    let refusals: [(UInt64, FailureKind)] = [
      (512, .notPermitted), (6_000_129, .invalid), (1 << 61, .tooLarge),
    ]
    for (size, kind) in refusals {
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

  @Test(
    "an L1 table may have more clusters than a refcount block counts",
    arguments: [(16, 1 << 30), (64, 9 << 30)])
  func longTable(refcountBits: Int, size: Int) throws {
    let bench = try Workbench()
    try bench.qemuImg("create", "-f", "qcow2", "base", "4M")
    try bench.qemuIO("base", ["write -P 7 0 4M"])
    try bench.qemuImg(
      "create", "-f", "qcow2", "-o", "cluster_size=512,refcount_bits=\(refcountBits)", "-b", "base",
      "-F", "qcow2", "top", "1M")
    let disk = try growable(bench)
    try disk.put([1, 2, 3], at: 5000)
    try disk.grow(to: UInt64(size))
    try disk.put([9], at: UInt64(size - 1))
    try disk.grow(to: UInt64(size + (64 << 20)))
    #expect(try disk.bytes(at: 4999, count: 5) == [7, 1, 2, 3, 7])
    #expect(try disk.bytes(at: (1 << 20) - 1, count: 2) == [7, 0])
    #expect(try disk.bytes(at: UInt64(size - 2), count: 3) == [0, 9, 0])
    try disk.close()
    try bench.expectClean("top")
  }

  @Test("a disk of very many tables grows over a backing file as large", .timeLimit(.minutes(5)))
  func growsFar() throws {
    let bench = try Workbench()
    // A table maps 2 MiB. To look at all those behind for each part of the backing file takes many minutes.
    let size: UInt64 = 512 << 30
    try bench.qemuImg("create", "-f", "qcow2", "base", "\(size)")
    try bench.qemuIO("base", ["write -P 7 \(size - 65536) 65536"])
    try bench.qemuImg(
      "create", "-f", "qcow2", "-o", "cluster_size=4k", "-b", "base", "-F", "qcow2", "top", "0")
    let disk = try growable(bench)
    try disk.grow(to: 3 * size)
    #expect(try disk.nextData(from: .zero) == nil)
    try disk.close()
    try bench.expectClean(bench.path("top"))
  }

  @Test("nothing is merged behind the end of what lies below, however far the disk reaches")
  func farBeyond() throws {
    let bench = try Workbench()
    try bench.qemuImg("create", "-f", "qcow2", "base", "3M")
    try bench.qemuIO("base", ["write -P 7 0 3M"])
    try bench.qemuImg("create", "-f", "qcow2", "-b", "base", "-F", "qcow2", "top", "1M")
    let disk = try growable(bench)
    let size: UInt64 = 1 << 40
    try disk.grow(to: size)
    #expect(try disk.bytes(at: (1 << 20) - 2, count: 4) == [7, 7, 0, 0])
    #expect(try disk.nextData(from: GuestOffset(4 << 20)) == nil)
    let plan = try disk.streamExtents(from: .zero, base: nil, limit: 8)
    #expect(plan.map(\.kind) == [.copy, .skip] && plan.last?.range.end == GuestOffset(size))
    // A granule of 32 MiB holds all that the base has; the disk has 32768 of them.
    #expect(disk.mapFigures.misses == 1)
    try disk.put([9], at: size - 1)
    #expect(try disk.bytes(at: size - 2, count: 2) == [0, 9])
    try disk.close()
    try bench.expectClean("top")
  }

  @Test("a raw data file that was longer than its disk reads as the disk when that has grown")
  func rawDataFile() throws {
    let bench = try Workbench()
    let data = bench.path("top.data")
    try bench.qemuImg(
      "create", "-f", "qcow2", "-o", "data_file=\(data),data_file_raw=on", "top", "1M")
    try bench.qemuIO("top", ["write -P 7 0 1M"])
    let file = try FileHandle(forUpdating: URL(fileURLWithPath: data))
    try file.seekToEnd()
    try file.write(contentsOf: [UInt8](repeating: 8, count: 3 << 20))
    try file.close()
    let disk = try growable(bench)
    try disk.grow(to: 2 << 20)
    try disk.put([9], at: (2 << 20) - 1)
    let wanted =
      [UInt8](repeating: 7, count: 1 << 20) + [UInt8](repeating: 0, count: (1 << 20) - 1) + [9]
    #expect(firstDifference(try disk.allBytes(), wanted) == nil)
    try disk.close()
    try bench.expectClean("top")
    let found = try fileBytes(data)
    #expect(firstDifference(Array(found[..<(2 << 20)]), wanted) == nil)
    #expect(found[(2 << 20)...].allSatisfy { $0 == 8 }, "what no disk has was touched")
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

  func growable(_ bench: Workbench) throws -> Disk {
    try Disk.open(
      DeviceConfiguration(
        name: "vda", image: .qcow2(path: bench.path("top")), isGrowable: true))
  }

  @Test("version 2 hides a base's tail with bytes", arguments: [512, 65536])
  func version2(clusterSize: Int) throws {
    let bench = try Workbench()
    try bench.qemuImg("create", "-f", "qcow2", "base", "3M")
    try bench.qemuIO("base", ["write -P 7 0 3M"])
    try bench.qemuImg(
      "create", "-f", "qcow2", "-o", "compat=0.10,cluster_size=\(clusterSize)", "-b", "base", "-F",
      "qcow2", "top", "1000448")
    let disk = try growable(bench)
    try disk.grow(to: 2 << 20)
    try disk.close()
    try bench.expectClean("top")
    let wanted =
      [UInt8](repeating: 7, count: 1_000_448)
      + [UInt8](repeating: 0, count: (2 << 20) - 1_000_448)
    #expect(firstDifference(try bench.flatBytes("top"), wanted) == nil)
  }

  @Test("what a larger disk left behind its end does not come back")
  func shrunkBefore() throws {
    let bench = try Workbench()
    try bench.qemuImg("create", "-f", "qcow2", "top", "1M")
    try bench.qemuIO("top", ["write -P 7 0 1M"])
    try bench.qemuImg("resize", "--shrink", "top", "1000448")
    let disk = try growable(bench)
    try disk.grow(to: 2 << 20)
    let found = try disk.allBytes()
    #expect(found[..<1_000_448].allSatisfy { $0 == 7 })
    #expect(found[1_000_448...].allSatisfy { $0 == 0 })
    try disk.close()
    try bench.expectClean("top")
  }

  @Test(
    "internal snapshots keep their size and bytes in version 3, and forbid growing in version 2")
  func snapshots() throws {
    for compat in ["0.10", "1.1"] {
      let bench = try Workbench()
      try bench.qemuImg("create", "-f", "qcow2", "-o", "compat=\(compat)", "top", "1M")
      try bench.qemuIO("top", ["write -P 7 0 1M"])
      try bench.qemuImg("snapshot", "-c", "one", "top")
      let disk = try growable(bench)
      if compat == "0.10" {
        let before = try fileBytes(bench.path("top"))
        #expect(throws: ChainError.self) { try disk.grow(to: 2 << 20) }
        try disk.close()
        #expect(try fileBytes(bench.path("top")) == before)
        continue
      }
      try disk.grow(to: 2 << 20)
      try disk.put([9, 9], at: 5)
      try disk.put([9, 9], at: (2 << 20) - 2)
      try disk.close()
      try bench.expectClean("top")
      let flat = bench.path("snap.raw")
      try bench.qemuImg("convert", "-l", "one", "-O", "raw", "top", flat)
      // QEMU shows a snapshot as large as the disk is now.
      let snapshot = try fileBytes(flat)
      let isKept = snapshot[..<(1 << 20)].allSatisfy { $0 == 7 }
      #expect(isKept && snapshot[(1 << 20)...].allSatisfy { $0 == 0 })
      try bench.qemuImg("snapshot", "-a", "one", "top")
      try bench.expectClean("top")
      let back = try bench.flatBytes("top")
      #expect(firstDifference(back, [UInt8](repeating: 7, count: 1 << 20)) == nil)
    }
  }

  @Test(
    "VM state in L1 entries behind the disk is given back, not shown", arguments: [false, true])
  func vmState(isShared: Bool) throws {
    let bench = try Workbench()
    // One L2 table maps 2 MiB; what is written to the third becomes VM state when the disk ends
    // before it.
    try bench.qemuImg("create", "-f", "qcow2", "-o", "cluster_size=4k", "top", "6M")
    try bench.qemuIO("top", ["write -P 7 0 8k", "write -P 8 4M 100k"])
    if isShared { try bench.qemuImg("snapshot", "-c", "one", "top") }
    let file = try FileHandle(forUpdating: URL(fileURLWithPath: bench.path("top")))
    try file.seek(toOffset: 24)
    try file.write(contentsOf: [0, 0, 0, 0, 0, 0x20, 0, 0])
    try file.close()
    try bench.expectClean("top")
    let disk = try growable(bench)
    try disk.grow(to: 6 << 20)
    let found = try disk.allBytes()
    #expect(found[..<8192].allSatisfy { $0 == 7 } && found[8192...].allSatisfy { $0 == 0 })
    try disk.close()
    try bench.expectClean("top")
    if isShared {
      let flat = bench.path("snap.raw")
      try bench.qemuImg("convert", "-l", "one", "-O", "raw", "top", flat)
      #expect(try fileBytes(flat)[4 << 20..<(4 << 20) + 102_400].allSatisfy { $0 == 8 })
    }
  }
}
