import Foundation
import HostSystem
import ImageDriver
import Testing

@testable import Chain

@Suite("Images of other programs", .enabled(if: Workbench.hasTool("qemu-img")))
struct ForeignFormatTests {
  /// Makes the file `image`: by qemu-img where it can, else by its magic.
  func make(_ format: ForeignFormat, in bench: Workbench) throws {
    let magic: [UInt8]
    switch format {
    case .bochs: magic = Array("Bochs Virtual HD Image".utf8)
    case .cloop: magic = Array("#!/bin/sh\n#V2.0 Format\nmodprobe cloop".utf8)
    case .dmg: magic = [UInt8](repeating: 0, count: 65_536) + Array("koly".utf8)
    case .luks:
      try bench.qemuImg(
        "create", "-f", "luks", "--object", "secret,id=s,data=abc", "-o",
        "key-secret=s,iter-time=10", "image", "1M")
      return
    default:
      _ = try bench.qemuImg("create", "-f", format.rawValue, "image", "1M")
      return
    }
    let bytes = magic + [UInt8](repeating: 0, count: (512 - magic.count % 512) % 512)
    try Data(bytes).write(to: URL(fileURLWithPath: bench.path("image")))
  }

  func refusal(_ path: String) -> String {
    do {
      try Disk.open(DeviceConfiguration(name: "vda", image: .qcow2(path: path))).close()
      return "it was opened"
    } catch { return error.description }
  }

  @Test("they are refused by name with the command that helps", arguments: ForeignFormat.allCases)
  func refused(format: ForeignFormat) throws {
    let bench = try Workbench()
    try make(format, in: bench)
    let command = format.conversion(of: bench.path("image"))
    #expect(command.contains(" -O qcow2 ") && command.contains(format.rawValue))
    let alone = refusal(bench.path("image"))
    #expect(alone.contains("\(format.name) image") && alone.contains(command), "\(alone)")
    let json = #"json:{"driver":"\#(format.rawValue)","file.filename":"\#(bench.path("image"))"}"#
    for (name, named) in [
      (bench.path("image"), "qcow2"), (bench.path("image"), format.rawValue),
      (json, ""),
    ] {
      try bench.run("rm", ["-f", "top"])
      try bench.qemuImg(
        "create", "-u", "-f", "qcow2", "-b", name, "-F", named.isEmpty ? "qcow2" : named, "top",
        "1M")
      let below = refusal(bench.path("top"))
      #expect(below.contains("\(format.name) image") && below.contains(command), "\(below)")
    }
    // Whoever says raw gets the bytes of the file.
    let disk = try Disk.open(
      DeviceConfiguration(name: "vda", image: .raw(path: bench.path("image")), isReadOnly: true))
    let size = Int(disk.virtualSize)
    let bytes = try fileBytes(bench.path("image"))
    #expect(try disk.bytes(at: 0, count: min(bytes.count, size)) == bytes)
    try disk.close()
  }

  @Test("a VHD of fixed size and the other kinds of VMDK are recognised")
  func kinds() throws {
    let bench = try Workbench()
    for (format, kind) in [
      ("vpc", "fixed"), ("vmdk", "monolithicFlat"), ("vmdk", "twoGbMaxExtentSparse"),
      ("vmdk", "streamOptimized"),
    ] {
      try bench.qemuImg("create", "-f", format, "-o", "subformat=\(kind)", "image", "1M")
      #expect(refusal(bench.path("image")).contains("-f \(format) "), "\(kind)")
    }
  }

  @Test("what a guest writes to the end of a qcow2 image makes it no other image")
  func guestBytes() throws {
    let bench = try Workbench()
    try bench.qemuImg("create", "-f", "qcow2", "top", "1M")
    for text in ["koly", "conectix"] {
      let disk = try Disk.open(
        DeviceConfiguration(name: "vda", image: .qcow2(path: bench.path("top"))))
      try disk.put(Array(text.utf8), at: 65_536 - 512)
      try disk.put([UInt8](repeating: 0, count: 504), at: 65_536 - 504)
      try disk.close()
      let size = try fileBytes(bench.path("top")).count
      try bench.run("truncate", ["-s", "\(size / 65_536 * 65_536)", "top"])
      #expect(refusal(bench.path("top")) == "it was opened")
    }
  }
}
