import Foundation
import HostSystem
import TestSupport
import Testing

@testable import Chain

@Suite("Windows of files", .enabled(if: Workbench.hasTool("qemu-img")))
struct WindowTests {
  static let json =
    #"json:{"driver":"raw","offset":%,"size":65536,"#
    + #""file":{"driver":"file","filename":"@"}}"#

  func name(_ offset: Int, _ path: String) -> String {
    Self.json.replacing("%", with: "\(offset)").replacing("@", with: path)
  }

  func noise(_ bench: Workbench, _ count: Int) throws -> [UInt8] {
    var random = SystemRandomNumberGenerator()
    let bytes = (0..<count).map { _ in UInt8.random(in: 1...255, using: &random) }
    try Data(bytes).write(to: URL(fileURLWithPath: bench.path("file")))
    return bytes
  }

  @Test("a raw window below an overlay shows what QEMU shows", arguments: [0, 512, 100, 131_072])
  func shows(offset: Int) throws {
    let bench = try Workbench()
    let bytes = try noise(bench, 131_072 + 65_536)
    try bench.qemuImg(
      "create", "-f", "qcow2", "-b", name(offset, bench.path("file")), "-F", "raw", "top", "100k")
    let disk = try Disk.open(
      DeviceConfiguration(name: "vda", image: .qcow2(path: bench.path("top"))))
    let wanted = Array(bytes[offset..<offset + 65_536]) + [UInt8](repeating: 0, count: 36_864)
    #expect(firstDifference(try disk.allBytes(), wanted) == nil)
    try disk.put([1, 2, 3], at: 65_534)
    let all = try disk.allBytes()
    try disk.streamAll()
    #expect(firstDifference(try disk.allBytes(), all) == nil)
    try disk.close()
    try bench.expectClean("top")
    #expect(firstDifference(try bench.flatBytes("top"), all) == nil)
    #expect(try fileBytes(bench.path("file")) == bytes)
  }

  @Test("an image in a window of a file is a backing image, two windows of one file are two layers")
  func images() throws {
    let bench = try Workbench()
    try bench.qemuImg("create", "-f", "qcow2", "inner", "128k")
    try bench.qemuIO("inner", ["write -P 5 0 64k"])
    let bytes = try fileBytes(bench.path("inner"))
    let plain = [UInt8](repeating: 6, count: 65_536)
    try Data(plain + bytes).write(to: URL(fileURLWithPath: bench.path("file")))
    let file = #"{"driver":"file","filename":"\#(bench.path("file"))"}"#
    let backing = #"{"driver":"raw","size":65536,"file":\#(file)}"#
    let string =
      #"json:{"driver":"qcow2","file":{"driver":"raw","offset":65536,"file":\#(file)},"#
      + #""backing":\#(backing)}"#
    try bench.qemuImg("create", "-u", "-f", "qcow2", "-b", string, "-F", "qcow2", "top", "128k")
    let disk = try Disk.open(
      DeviceConfiguration(name: "vda", image: .qcow2(path: bench.path("top"))))
    #expect(try disk.layers().count == 3)
    let wanted = [UInt8](repeating: 5, count: 65_536) + [UInt8](repeating: 0, count: 65_536)
    #expect(firstDifference(try disk.allBytes(), wanted) == nil)
    let bottom = try #require(try disk.layers().last?.id)
    try disk.streamAll(base: bottom)
    #expect(firstDifference(try disk.allBytes(), wanted) == nil)
    try disk.close()
    #expect(firstDifference(try bench.flatBytes("top"), wanted) == nil)
    #expect(try bench.qemuImg("info", "top").contains(#""size":65536"#))
  }

  @Test("a stream to a window keeps the json form, made absolute where it has to be")
  func stream() throws {
    let bench = try Workbench()
    let bytes = try noise(bench, 131_072)
    try bench.run("mkdir", ["tops"])
    try bench.qemuImg(
      "create", "-f", "qcow2", "-b", name(512, "file"), "-F", "raw", "middle", "64k")
    try bench.qemuImg(
      "create", "-f", "qcow2", "-b", bench.path("middle"), "-F", "qcow2", "tops/top")
    let disk = try Disk.open(
      DeviceConfiguration(name: "vda", image: .qcow2(path: bench.path("tops/top"))))
    let base = try disk.findLayer(named: "file")
    for plain in ["../file", bench.path("file"), name(1024, bench.path("file"))] {
      #expect(throws: ChainError.self) { try disk.backingString(for: base, requested: plain) }
    }
    try disk.streamAll(base: base)
    try disk.close()
    let wanted = Array(bytes[512..<512 + 65_536])
    #expect(firstDifference(try bench.flatBytes("tops/top"), wanted) == nil)
    #expect(try bench.qemuImg("info", "tops/top").contains(name(512, bench.path("file"))))
  }

  @Test("a window that its file does not have is refused as by QEMU", arguments: [1024, 65_537])
  func outside(offset: Int) throws {
    let bench = try Workbench()
    _ = try noise(bench, 65_536)
    try bench.qemuImg(
      "create", "-u", "-f", "qcow2", "-b", name(offset, bench.path("file")), "-F", "raw", "top",
      "64k")
    #expect(throws: CommandFailure.self) { try bench.flatBytes("top") }
    do {
      _ = try Disk.open(
        DeviceConfiguration(name: "vda", image: .qcow2(path: bench.path("top"))))
      Issue.record("it was opened")
    } catch {
      #expect(error.description.contains("\(offset)"), "\(error)")
      #expect(error.kind == .unsupported)
    }
  }
}
