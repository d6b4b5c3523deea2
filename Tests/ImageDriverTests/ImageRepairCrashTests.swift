import BlockIO
import HostSystem
import Qcow2Format
import TestSupport
import Testing

@testable import ImageDriver

/// A repair that is cut off at any call leaves an image that reads the same, and the next one ends it.
@Suite("A repair that is cut off", .tags(.crash))
struct ImageRepairCrashTests {
  static let size: UInt64 = 256 << 10

  enum Damage: String, CaseIterable {
    case leaks, low, noBlock, sharedBlock, blockIsData, tableBehindEnd, reservedBits, marks
    case twoNames, all
  }

  /// An image with some data, and its bytes as the guest reads them.
  static func image(clusterSize: Int, refcountBits: Int) throws -> (SimulatedDisk, [UInt8]) {
    let disk = SimulatedDisk(seed: 77)
    var options = ImageBuilder.Options(virtualSize: size)
    options.clusterSize = clusterSize
    options.refcountBits = refcountBits
    try ImageBuilder.create(on: disk, options)
    var random = SeededGenerator(seed: 77)
    let image = try Qcow2Image(storage: disk)
    for _ in 0..<8 {
      try image.put(random.bytes(7000), at: Int.random(in: 0..<Int(size) - 7000, using: &random))
    }
    try image.close()
    return (disk, try image.get(0, Int(size)))
  }

  static func damage(_ disk: SimulatedDisk, _ damage: Damage) throws {
    let header = try ImageHeader.read(from: disk)
    let size = header.geometry.clusterSize
    let block = try disk.readEntries(1, at: header.refcountTableOffset)[0]
    let l1 = try disk.readEntries(header.l1Size, at: header.l1TableOffset)
    let table = (l1.first { $0 != 0 } ?? 0) & 0xff_ffff_ffff_fe00
    let entries = try disk.readEntries(size / 8, at: table)
    let used = entries.indices.filter { entries[$0] != 0 }
    switch damage {
    case .leaks: try disk.put([UInt8](repeating: 0xff, count: size), at: block)
    case .low: try disk.put([UInt8](repeating: 0, count: size / 2), at: block)
    case .noBlock: try disk.writeEntries([0], at: header.refcountTableOffset)
    case .sharedBlock: try disk.writeEntries([block], at: header.refcountTableOffset + 8)
    case .blockIsData:
      try disk.writeEntries([entries[used[0]] & ~(1 << 63)], at: header.refcountTableOffset)
    case .tableBehindEnd: try disk.writeEntries([1 << 40], at: 48)
    case .reservedBits:
      for index in used {
        try disk.writeEntries([entries[index] | 6], at: table + UInt64(index * 8))
      }
    case .marks:
      for index in used {
        try disk.writeEntries([entries[index] & ~(1 << 63)], at: table + UInt64(index * 8))
      }
    case .twoNames:
      try disk.writeEntries([entries[used[0]]], at: table + UInt64(used[1] * 8))
    case .all:
      for one in [Damage.leaks, .marks, .reservedBits, .sharedBlock] { try Self.damage(disk, one) }
      try disk.put([3], at: 79)
    }
    try disk.flush()
  }

  static func content(_ disk: SimulatedDisk) throws -> [UInt8] {
    try disk.changeRole(to: .backing)
    defer { try? disk.changeRole(to: .active) }
    return try Qcow2Image(storage: disk).get(0, Int(size))
  }

  @Test(
    "the image reads the same after a crash at any call, and a second repair leaves nothing",
    arguments: Damage.allCases, [(512, 16), (4096, 64), (4096, 2)])
  func crashes(damage: Damage, shape: (clusterSize: Int, refcountBits: Int)) throws {
    let (sound, bytes) = try Self.image(
      clusterSize: shape.clusterSize, refcountBits: shape.refcountBits)
    try Self.damage(sound, damage)
    // The reserved bits are in the way of a read, as a table where no file is keeps it from opening.
    let isReadable = damage != .reservedBits && damage != .all && damage != .tableBehindEnd
    let expected = damage == .twoNames ? try Self.content(sound) : bytes
    var step = 1
    while true {
      let disk = SimulatedDisk(seed: UInt64(step), durable: sound.snapshot)
      disk.inject(.losesPower(call: step))
      var isDone = false
      do {
        let report = try ImageCheck.repair(storage: disk, .all)
        #expect(report.isClean, "\(report.findings)")
        #expect(report.corruptionsFixed + report.leaksFixed > 0)
        isDone = true
      } catch {
        // The power is gone; what counts is what is left.
      }
      for seed in 0..<3 as Range<UInt64> {
        let left = disk.crash(seed: seed &+ UInt64(step) &* 31)
        if isReadable { #expect(try Self.content(left) == expected, "call \(step), crash \(seed)") }
        let report = try ImageCheck.repair(storage: left, .all)
        #expect(report.isClean, "call \(step), crash \(seed): \(report.findings)")
        #expect(try ImageHeader.read(from: left).incompatibleFeatures == 0)
        #expect(try Self.content(left) == expected, "call \(step), crash \(seed)")
        #expect(try Audit(left).faults == [])
      }
      if isDone { return }
      step += step < 12 ? 1 : 5
    }
  }

  @Test("each call that fails ends the repair with its error, and leaves nothing worse")
  func failingCalls() throws {
    let (sound, bytes) = try Self.image(clusterSize: 512, refcountBits: 16)
    try Self.damage(sound, .sharedBlock)
    try Self.damage(sound, .marks)
    var call = 1
    while true {
      let disk = SimulatedDisk(seed: UInt64(call), durable: sound.snapshot)
      disk.inject(.fails(call: call))
      let isDone = (try? ImageCheck.repair(storage: disk, .all)) != nil
      disk.inject(nil)
      #expect(try Self.content(disk) == bytes, "call \(call)")
      let left = SimulatedDisk(seed: 1, durable: disk.snapshot)
      #expect(try ImageCheck.repair(storage: left, .all).isClean, "call \(call)")
      if isDone { return }
      call += call < 20 ? 1 : 9
    }
  }
}
