import HostSystem
import ImageDriver
import TestSupport
import Testing

@testable import Chain

@Suite("Snapshots over what could not be mounted below them")
struct SnapshotLimitTests {
  private func refusal(_ disk: Disk, _ path: String) -> ChainError? {
    #expect(throws: ChainError.self) { try disk.snapshot(path: path) }
  }

  @Test("a chain gets its last layer, which can be mounted, and none above that")
  func layers() throws {
    let limit = ChainOpener.layerLimit
    let files = try DeepChainTests().makeChain(depth: limit - 1)
    func open(_ path: String) throws -> Disk {
      try Disk.open(DeviceConfiguration(name: "vda", image: .qcow2(path: path)), files: files)
    }
    let disk = try open("/\(limit - 2)")
    try disk.snapshot(path: "/last")
    try disk.put([7], at: 0)
    #expect(refusal(disk, "/beyond")?.kind == .unsupported)
    #expect(files.disk("/beyond") == nil)
    #expect(try disk.layers().count == limit)
    let bytes = try disk.allBytes()
    try disk.close()
    files.settle()
    let again = try open("/last")
    #expect(try again.allBytes() == bytes && bytes[0] == 7)
    _ = try again.streamAll(base: try again.findLayer(named: "\(limit - 3)"))
    try again.snapshot(path: "/beyond")
    try again.close()
  }

  @Test("an image outside of backing-root stays on top", arguments: [true, false])
  func root(isInside: Bool) throws {
    let files = SimulatedFiles()
    let path = isInside ? "/images/top" : "/top"
    let storage = try files.create(path, like: SimulatedDisk(seed: 0), isLocked: false)
    try ImageBuilder.create(on: storage, ImageBuilder.Options(virtualSize: 1 << 20))
    let disk = try Disk.open(
      DeviceConfiguration(
        name: "vda", image: .qcow2(path: path), backingRoot: "/images"), files: files)
    if isInside {
      try disk.snapshot(path: "/new")
    } else {
      #expect(refusal(disk, "/new")?.kind == .notPermitted)
    }
    #expect((files.disk("/new") != nil) == isInside)
    try disk.close()
  }
}
