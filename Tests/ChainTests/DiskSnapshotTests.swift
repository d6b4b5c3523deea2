import Foundation
import HostSystem
import Testing

@testable import Chain

@Suite("Snapshots of a disk", .enabled(if: Workbench.hasTool("qemu-img")))
struct DiskSnapshotTests {
  @Test("after a snapshot the old image keeps its bytes and new ones go to the overlay")
  func snapshots() throws {
    let bench = try Workbench()
    try bench.qemuImg("create", "-f", "qcow2", "top", "4M")
    let disk = try Disk.open(
      DeviceConfiguration(name: "vda", image: .qcow2(path: bench.path("top"))))
    try disk.put([UInt8](repeating: 1, count: 300_000), at: 1000)
    let first = try disk.allBytes()
    try disk.snapshot(path: bench.path("sn1"))
    #expect(try disk.allBytes() == first)
    try disk.put([UInt8](repeating: 2, count: 1000), at: 2000)
    let second = try disk.allBytes()
    try disk.snapshot(path: bench.path("sn2"))
    try disk.discard(GuestRange(offset: .zero, length: 65536))
    let third = try disk.allBytes()
    #expect(third.prefix(65536).allSatisfy { $0 == 0 })
    #expect(try disk.layers().map(\.fileName) == ["sn2", "sn1", "top"])
    // The old images are backing layers now: QEMU may read them beside us.
    #expect(try bench.flatBytes(bench.path("top")) == first)
    #expect(try bench.flatBytes(bench.path("sn1")) == second)
    try disk.close()
    #expect(try bench.flatBytes(bench.path("sn2")) == third)
    for name in ["top", "sn1", "sn2"] { try bench.expectClean(bench.path(name)) }
    let info = try bench.qemuImg("info", bench.path("sn2"))
    #expect(info.contains("backing file: \(bench.path("sn1"))"))
    #expect(info.contains("backing file format: qcow2"))
  }

  @Test("a snapshot of a raw disk names its format, and streams back together")
  func rawBelow() throws {
    let bench = try Workbench()
    try bench.qemuImg("create", "-f", "raw", "disk", "1M")
    let disk = try Disk.open(
      DeviceConfiguration(name: "vda", image: .raw(path: bench.path("disk"))))
    try disk.put([5], at: 5)
    try disk.snapshot(path: bench.path("sn"))
    try disk.put([6], at: 6)
    let bytes = try disk.allBytes()
    #expect(Array(bytes[4..<8]) == [0, 5, 6, 0])
    #expect(try disk.layers().map(\.format) == ["qcow2", "raw"])
    try disk.streamAll()
    #expect(try disk.allBytes() == bytes)
    try disk.close()
    #expect(try bench.flatBytes(bench.path("sn")) == bytes)
    try bench.expectClean(bench.path("sn"))
    #expect(try fileBytes(bench.path("disk"))[6] == 0)
  }

  @Test("an overlay that is there already is taken if it is empty and fits")
  func existing() throws {
    let bench = try Workbench()
    try bench.qemuImg("create", "-f", "qcow2", "top", "1M")
    try bench.qemuIO("top", ["write -P 3 0 64k"])
    try bench.qemuImg("create", "-f", "qcow2", "strange", "1M")
    try bench.qemuImg("create", "-f", "qcow2", "-b", "top", "-F", "qcow2", "fits", "1M")
    try bench.qemuImg("create", "-f", "qcow2", "-b", "top", "-F", "qcow2", "large", "2M")
    try bench.qemuImg("create", "-f", "qcow2", "-b", "top", "-F", "qcow2", "full", "1M")
    try bench.qemuIO("full", ["write -P 3 0 64k"])
    try bench.qemuImg("create", "-f", "qcow2", "-b", "strange", "-F", "qcow2", "other", "1M")
    try bench.qemuImg("create", "-f", "qcow2", "alone", "1M")
    let disk = try Disk.open(
      DeviceConfiguration(name: "vda", image: .qcow2(path: bench.path("top"))))
    let before = try disk.allBytes()
    for name in ["large", "full", "other", "alone", "missing", "top"] {
      let there = FileManager.default.fileExists(atPath: bench.path(name))
      #expect(throws: ChainError.self, "\(name)") {
        try disk.snapshot(path: bench.path(name), mode: .existing)
      }
      #expect(FileManager.default.fileExists(atPath: bench.path(name)) == there)
      #expect(try disk.layers().count == 1)
    }
    try disk.put([9], at: 9)
    try disk.snapshot(path: bench.path("fits"), mode: .existing)
    #expect(try disk.layers().map(\.fileName) == ["fits", "top"])
    try disk.put(Array(before[9...9]), at: 9)
    #expect(try disk.allBytes() == before)
    try disk.close()
    #expect(try bench.flatBytes(bench.path("fits")) == before)
  }

  @Test("a refused snapshot leaves no file and changes nothing")
  func refused() throws {
    let bench = try Workbench()
    try bench.qemuImg("create", "-f", "qcow2", "top", "1M")
    try bench.run("touch", ["there"])
    try bench.run("ln", ["-s", bench.path("nowhere"), "link"])
    let disk = try Disk.open(
      DeviceConfiguration(name: "vda", image: .qcow2(path: bench.path("top"))))
    let cases: [(String, String, FailureKind)] = [
      (bench.path("there"), "qcow2", .exists), (bench.path("link"), "qcow2", .exists),
      (bench.path("top"), "qcow2", .exists), (bench.path("no/dir"), "qcow2", .notFound),
      ("relative", "qcow2", .invalid), (bench.path("new"), "vmdk", .unsupported),
    ]
    let files = try FileManager.default.contentsOfDirectory(atPath: bench.directory).sorted()
    for (path, format, kind) in cases {
      do {
        try disk.snapshot(path: path, format: format)
        Issue.record("\(path) was taken")
      } catch {
        #expect(error.kind == kind, "\(error)")
      }
    }
    #expect(
      try FileManager.default.contentsOfDirectory(atPath: bench.directory).sorted() == files)
    try disk.put([1], at: 1)
    #expect(try disk.bytes(at: 1, count: 1) == [1])
    try disk.close()
  }

  @Test("the overlay has the mode of the image below it")
  func mode() throws {
    let bench = try Workbench()
    try bench.qemuImg("create", "-f", "qcow2", "top", "1M")
    try bench.run("chmod", ["640", "top"])
    let disk = try Disk.open(
      DeviceConfiguration(name: "vda", image: .qcow2(path: bench.path("top"))))
    try disk.snapshot(path: bench.path("sn"))
    let mode = try FileManager.default.attributesOfItem(atPath: bench.path("sn"))[.posixPermissions]
    #expect(mode as? Int == 0o640)
    try disk.close()
  }
}
