import BlockIO
import HostSystem
import Qcow2Format
import TestSupport
import Testing

@testable import ImageDriver

@Suite("The dirty and the corrupt bit")
struct ImageMarksTests {
  static let size: UInt64 = 256 << 10

  static func fresh(version: Int = 3, lazy: Bool = false) throws -> SimulatedDisk {
    let disk = SimulatedDisk(seed: 9)
    var options = ImageBuilder.Options(virtualSize: size)
    options.clusterSize = 4096
    options.version = version
    try ImageBuilder.create(on: disk, options)
    if lazy {
      try disk.put([0, 0, 0, 0, 0, 0, 0, 1], at: 80)
      try disk.flush()
    }
    return disk
  }

  static func features(_ disk: SimulatedDisk) throws -> UInt64 {
    try ImageHeader.read(from: disk).incompatibleFeatures
  }

  @Test("the first write that claims marks the image, a clean close takes the mark away")
  func claimAndClose() throws {
    let disk = try Self.fresh(lazy: true)
    let image = try Qcow2Image(storage: disk)
    #expect(try Self.features(disk) == 0)
    try image.put([1, 2, 3], at: 0)
    #expect(try Self.features(disk.crash(seed: 1)) == 1)
    try image.close()
    #expect(try Self.features(disk.crash(seed: 1)) == 0)
    // A write in place needs no mark.
    let again = try Qcow2Image(storage: disk)
    try again.put([4], at: 1)
    #expect(try Self.features(disk) == 0)
    try again.put([5], at: 100_000)
    #expect(try Self.features(disk) == 1)
    try again.close()
    let header = try ImageHeader.read(from: disk)
    #expect(header.incompatibleFeatures == 0)
    #expect(header.compatibleFeatures == ImageHeader.lazyRefcountsFeature)
  }

  @Test("an image goes on after a close that was not the end")
  func goesOn() throws {
    let disk = try Self.fresh()
    let image = try Qcow2Image(storage: disk)
    try image.put([1], at: 0)
    try image.close()
    try image.put([2], at: 50_000)
    #expect(try Self.features(disk) == 1)
    try image.close()
    #expect(try Self.features(disk) == 0)
    #expect(try ImageCheck.run(storage: disk).isClean)
  }

  @Test("version 2 has no mark, and leaks until it is repaired")
  func version2() throws {
    let disk = try Self.fresh(version: 2)
    let bytes = try disk.bytes(at: 72, count: 8)
    let image = try Qcow2Image(storage: disk)
    try image.put([1], at: 0)
    try image.flush()
    let left = disk.crash(seed: 3)
    #expect(try left.bytes(at: 72, count: 8) == bytes)
    let again = try Qcow2Image(storage: left)
    let report = try ImageCheck.run(storage: left)
    #expect(report.leaks + report.leaksBehindEnd > 0)
    try again.close()
    #expect(try ImageCheck.repair(storage: left, .all).isClean)
  }

  @Test("whatever is counted ahead is marked after a crash at any call, and an open gives it back")
  func crashes() throws {
    var random = Seed.generator("marks after a crash")
    let disk = try Self.fresh()
    let storage = WatchedStorage(disk)
    let image = try Qcow2Image(storage: storage)
    let seeds = Monitor(SeededGenerator(seed: random.next()))
    storage.watch { disk in
      let seed = seeds.withLock { $0.next() }
      do {
        let left = disk.crash(seed: seed)
        let report = try ImageCheck.run(storage: left)
        let isMarked = try Self.features(left) == 1
        #expect(isMarked || report.leaks + report.leaksBehindEnd == 0, "seed \(seed)")
        #expect(report.corruptions == 0)
        let opened = try Qcow2Image(storage: left)
        #expect(try Self.features(left) == 0)
        let after = try ImageCheck.run(storage: left)
        #expect(after.isClean, "seed \(seed): \(after.findings)")
        _ = try opened.get(0, Int(Self.size))
      } catch { Issue.record("seed \(seed): \(error)") }
    }
    for step in 0..<12 {
      let offset = Int.random(in: 0..<Int(Self.size) - 9000, using: &random)
      try image.put(random.bytes(9000), at: offset)
      if random.oneIn(3) { try image.zero(offset, 8192, .unmap) }
      if step % 4 == 3 { try image.settle() }
    }
    try image.close()
    storage.watch(nil)
    #expect(try Self.features(disk) == 0)
  }

  @Test("the mark stays if the last flush fails")
  func failedFlush() throws {
    let disk = try Self.fresh()
    let image = try Qcow2Image(storage: disk)
    try image.put([1], at: 0)
    disk.inject(.fails(call: disk.callCount + 1))
    #expect(throws: ImageError.self) { try image.close() }
    disk.inject(nil)
    #expect(throws: ImageError.self) { try image.close() }
    #expect(try Self.features(disk) == 1)
  }

  @Test("an image that was not closed is read as it is")
  func readOnly() throws {
    let disk = try Self.fresh()
    let image = try Qcow2Image(storage: disk)
    try image.put([1, 2], at: 0)
    try image.flush()
    let left = disk.crash(seed: 5)
    let before = left.snapshot
    try left.changeRole(to: .backing)
    #expect(try Qcow2Image(storage: left).get(0, 3) == [1, 2, 0])
    #expect(left.snapshot == before)
  }

  // MARK: - Corruption

  @Test("impossible metadata stops writes and is marked; the rest is read", arguments: [2, 3])
  func corruption(version: Int) throws {
    let disk = try Self.fresh(version: version)
    let image = try Qcow2Image(storage: disk)
    try image.put([1, 2, 3], at: 0)
    try image.put([4, 5, 6], at: 8192)
    try image.close()
    let header = try ImageHeader.read(from: disk)
    let table = try disk.readEntries(1, at: header.l1TableOffset)[0] & 0xff_ffff_ffff_fe00
    let entry = try disk.readEntries(1, at: table + 16)
    // The third cluster's home is not aligned any more.
    try disk.writeEntries([entry[0] + 512], at: table + 16)
    let broken = try Qcow2Image(storage: disk)
    #expect(try broken.get(0, 3) == [1, 2, 3])
    #expect(throws: ImageError.self) { try broken.get(8192, 3) }
    let marks = try disk.crash(seed: 1).bytes(at: 79, count: 1)[0]
    #expect(marks & 2 == (version == 3 ? 2 : 0))
    for offset in [0, 50_000] {
      let refusal = #expect(throws: ImageError.self) { try broken.put([7], at: offset) }
      #expect(refusal?.description.contains("chainfs check --repair all") == true)
    }
    #expect(try broken.get(0, 3) == [1, 2, 3])
    try broken.close()
    if version == 3 {
      #expect(throws: ImageError.self) { try Qcow2Image(storage: disk) }
      try disk.changeRole(to: .backing)
      #expect(try Qcow2Image(storage: disk).get(0, 3) == [1, 2, 3])
    }
  }

  @Test("what was written before the corruption was found is still flushed")
  func flushAfterCorruption() throws {
    let disk = try Self.fresh()
    let image = try Qcow2Image(storage: disk)
    try image.put([1, 2, 3], at: 0)
    image.marks.setCorrupt("a test says so")
    try image.flush()
    let left = disk.crash(seed: 4)
    try left.changeRole(to: .backing)
    #expect(try Qcow2Image(storage: left).get(0, 3) == [1, 2, 3])
    #expect(try Self.features(left) == 3)
  }
}
