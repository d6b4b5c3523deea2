import BlockIO
import HostSystem
import ImageDriver
import TestSupport
import Testing

@testable import Chain

@Suite("Deep chains")
struct DeepChainTests {
  /// A chain on simulated disks in which layer n wrote n into sector n.
  func makeChain(depth: Int) throws -> SimulatedFiles {
    let files = SimulatedFiles()
    for index in 0..<depth {
      let storage = try files.create("/\(index)", like: SimulatedDisk(seed: 0), isLocked: false)
      let below = index == 0 ? nil : BackingReference(name: "\(index - 1)", format: "qcow2")
      var options = ImageBuilder.Options(virtualSize: 1 << 20, backing: below)
      options.clusterSize = 512
      try ImageBuilder.create(on: storage, options)
      let image = try Qcow2Image(storage: storage)
      let range = GuestRange(offset: GuestOffset(UInt64(index * 512)), length: 512)
      guard case .allocate(let ticket) = try image.beginWrite(range) else {
        Issue.record("a new image has room already")
        return files
      }
      let bytes = [UInt8](repeating: UInt8(truncatingIfNeeded: index), count: 512)
      try storage.write(bytes.span.bytes, at: ticket.host)
      try ticket.commit()
      try image.close()
    }
    files.settle()
    return files
  }

  @Test("a chain of 1000 layers reads every layer, and one of 1001 is refused")
  func thousand() throws {
    let files = try makeChain(depth: 1001)
    let disk = try Disk.open(
      DeviceConfiguration(name: "vda", image: .qcow2(path: "/999"), isReadOnly: true),
      files: files)
    #expect(try disk.layers().count == 1000)
    let bytes = try disk.allBytes()
    for index in 0..<1000 where bytes[index * 512] != UInt8(truncatingIfNeeded: index) {
      Issue.record("layer \(index) reads \(bytes[index * 512])")
    }
    #expect(try disk.findLayer(named: "500") == LayerID(rawValue: 500))
    try disk.close()
    do {
      _ = try Disk.open(
        DeviceConfiguration(name: "vda", image: .qcow2(path: "/1000"), isReadOnly: true),
        files: files)
      Issue.record("1001 layers were opened")
    } catch {
      guard case .tooManyLayers = error else { throw error }
    }
  }

  @Test("a stream to a base in the middle of many layers drops those above it")
  func middle() throws {
    let files = try makeChain(depth: 40)
    let disk = try Disk.open(
      DeviceConfiguration(name: "vda", image: .qcow2(path: "/39")), files: files)
    let before = try disk.allBytes()
    let result = try disk.streamAll(base: try disk.findLayer(named: "7"))
    // 40 sectors, of which 8 are the base's or lower and one is in the active image.
    #expect(result.copied == 31 * 512)
    #expect(try disk.layers().count == 9)
    #expect(try disk.allBytes() == before)
    try disk.close()
  }
}
