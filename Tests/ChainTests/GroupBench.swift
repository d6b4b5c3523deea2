import HostSystem
import ImageDriver
import TestSupport
import Testing

@testable import Chain

/// Two disks on simulated files, each a base with an overlay, and the bytes that they have to show.
///
///     vda   /vda-base <- /vda      snapshot: /vda-new
///     vdb   /vdb-base <- /vdb      snapshot: /vdb-new
final class GroupBench {
  static let names = ["vda", "vdb"]
  static let size = 256 << 10

  let files = SimulatedFiles()
  var disks: [Disk] = []
  var models: [[UInt8]] = []
  private var random: SeededGenerator

  init(seed: UInt64) throws {
    random = SeededGenerator(seed: seed)
    for name in Self.names {
      var model = [UInt8](repeating: 0, count: Self.size)
      for (path, below) in [("/\(name)-base", nil), ("/\(name)", "/\(name)-base")] {
        let storage = try files.create(path, like: SimulatedDisk(seed: 0), isLocked: false)
        var options = ImageBuilder.Options(
          virtualSize: UInt64(Self.size),
          backing: below.map { BackingReference(name: $0, format: "qcow2") })
        options.clusterSize = 4096
        try ImageBuilder.create(on: storage, options)
        let disk = try Self.open(files, name, path)
        try Self.scribble(disk, &model, &random, count: 6)
        try disk.close()
      }
      models.append(model)
    }
    files.settle()
    for name in Self.names { disks.append(try Self.open(files, name, "/" + name)) }
  }

  static func open(_ files: SimulatedFiles, _ name: String, _ path: String) throws -> Disk {
    try Disk.open(DeviceConfiguration(name: name, image: .qcow2(path: path)), files: files)
  }

  static func newPath(_ name: String) -> String { "/\(name)-new" }

  var group: GroupSnapshot {
    GroupSnapshot(disks.map { (disk: $0, path: Self.newPath($0.name)) })
  }

  /// Writes to all disks, of which nothing is flushed.
  func scribble(count: Int = 4) throws {
    for index in disks.indices {
      try Self.scribble(disks[index], &models[index], &random, count: count)
    }
  }

  private static func scribble(
    _ disk: Disk, _ model: inout [UInt8], _ random: inout SeededGenerator, count: Int
  ) throws {
    for _ in 0..<count {
      let start = Int.random(in: 0..<size - 1, using: &random)
      let length = Int.random(in: 1...min(20_000, size - start), using: &random)
      let bytes = random.bytes(length)
      try disk.put(bytes, at: UInt64(start))
      model.replaceSubrange(start..<start + length, with: bytes)
    }
  }

  /// All disks have their bytes, and this many layers.
  func expectDisks(layers: Int, _ says: String) throws {
    for (disk, model) in zip(disks, models) {
      #expect(try disk.layers().count == layers, "\(says): \(disk.name)")
      if let difference = firstDifference(try disk.allBytes(), model) {
        Issue.record("\(says): \(disk.name): \(difference)")
      }
    }
  }
}
