import BlockIO
import Foundation
import ImageDriver
import Testing

@testable import Chain

/// What a header holds that chainfs does not know, and that outlives every rewrite.
private struct Strangeness: Equatable {
  static let compatibleBit: UInt64 = 1 << 40
  static let autoclearBit: UInt64 = 1 << 50
  static let tail: [UInt8] = (0..<24).map { 0xA0 + $0 }
  static let item: [UInt8] = [0x12, 0x34, 0x56, 0x78, 0, 0, 0, 13] + (1...13) + [0, 0, 0]
  static let featureNames: UInt32 = 0x6803_f857

  var headerLength: UInt64
  var compatible: UInt64
  var tail: [UInt8]
  var items: [UInt32: [UInt8]]

  init(_ file: [UInt8]) {
    headerLength = number(file, at: 100, bytes: 4)
    compatible = number(file, at: 80)
    let length = Int(headerLength)
    tail = length > 112 ? Array(file[112..<length]) : []
    items = [:]
    var place = length
    while number(file, at: place, bytes: 4) != 0 {
      let type = UInt32(number(file, at: place, bytes: 4))
      let count = Int(number(file, at: place + 4, bytes: 4))
      items[type] = Array(file[place + 8..<place + 8 + count])
      place += 8 + (count + 7) / 8 * 8
    }
    // The backing format is known, and changes with the chain.
    items[0xe279_2aca] = nil
  }

  /// Puts strange things into an image that QEMU made.
  static func add(to path: String, dirty: Bool = false) throws -> Strangeness {
    var file = try fileBytes(path)
    let new = tail + item
    let clusterSize = 1 << Int(number(file, at: 20, bytes: 4))
    let rest = Array(file[112..<clusterSize])
    try #require(rest.suffix(new.count).allSatisfy { $0 == 0 })
    file.replaceSubrange(112..<clusterSize, with: new + rest.dropLast(new.count))
    let name = number(file, at: 8)
    if name != 0 { store(name + UInt64(new.count), in: &file, at: 8) }
    store(number(file, at: 80) | compatibleBit, in: &file, at: 80)
    store(autoclearBit, in: &file, at: 88)
    store(UInt64(112 + tail.count), in: &file, at: 100, bytes: 4)
    if dirty { store(number(file, at: 72) | 1, in: &file, at: 72) }
    try Data(file).write(to: URL(fileURLWithPath: path))
    let added = Strangeness(file)
    try #require(added.compatible == compatibleBit | 1 && added.tail == tail)
    try #require(added.items[0x1234_5678]?.count == 13 && added.items[featureNames] != nil)
    return added
  }
}

func number(_ file: [UInt8], at place: Int, bytes: Int = 8) -> UInt64 {
  file[place..<place + bytes].reduce(0) { $0 << 8 | UInt64($1) }
}

func store(_ value: UInt64, in file: inout [UInt8], at place: Int, bytes: Int = 8) {
  for index in 0..<bytes {
    file[place + index] = UInt8(truncatingIfNeeded: value >> UInt64(8 * (bytes - 1 - index)))
  }
}

@Suite("What a header holds beyond what is known", .enabled(if: Workbench.hasTool("qemu-img")))
struct KeptHeaderTests {
  private func open(_ path: String, isReadOnly: Bool = false) throws -> Disk {
    try Disk.open(
      DeviceConfiguration(
        name: "vda", image: .qcow2(path: path), isReadOnly: isReadOnly, isGrowable: true))
  }

  private func chain(_ bench: Workbench) throws -> Strangeness {
    let options = "lazy_refcounts=on"
    try bench.qemuImg("create", "-f", "qcow2", "base", "1M")
    try bench.qemuIO("base", ["write -P 1 0 256k"])
    try bench.qemuImg("create", "-f", "qcow2", "-b", "base", "-F", "qcow2", "mid")
    try bench.qemuIO("mid", ["write -P 2 128k 256k"])
    try bench.qemuImg(
      "create", "-f", "qcow2", "-o", options, "-b", "mid", "-F", "qcow2", "top")
    try bench.qemuIO("top", ["write -P 3 320k 128k"])
    return try Strangeness.add(to: bench.path("top"))
  }

  /// After a clean close of an image that was written to.
  private func expectKept(
    _ bench: Workbench, _ kept: Strangeness, _ bytes: [UInt8], _ step: Comment
  ) throws {
    let file = try fileBytes(bench.path("top"))
    #expect(Strangeness(file) == kept, step)
    #expect(number(file, at: 72) == 0 && number(file, at: 88) == 0, step)
    try bench.expectClean(bench.path("top"))
    try bench.qemuIO(bench.path("top"), ["read 0 512"])
    #expect(firstDifference(try bench.flatBytes(bench.path("top")), bytes) == nil, step)
  }

  @Test("an image that is only read keeps every byte", arguments: [true, false])
  func reading(isReadOnly: Bool) throws {
    let bench = try Workbench()
    _ = try chain(bench)
    let before = try fileBytes(bench.path("top"))
    let disk = try open(bench.path("top"), isReadOnly: isReadOnly)
    _ = try disk.allBytes()
    try disk.close()
    #expect(firstDifference(try fileBytes(bench.path("top")), before) == nil)
  }

  @Test("the first write clears unknown autoclear bits, and nothing else that is unknown")
  func firstWrite() throws {
    let bench = try Workbench()
    let kept = try chain(bench)
    let disk = try open(bench.path("top"))
    try disk.put([9, 9], at: 700_000)
    let bytes = try disk.allBytes()
    let during = try fileBytes(bench.path("top"))
    #expect(number(during, at: 88) == 0 && number(during, at: 72) == 1)
    #expect(Strangeness(during) == kept)
    try disk.close()
    try expectKept(bench, kept, bytes, "write")
  }

  @Test("growth and a live snapshot keep what is unknown")
  func growthAndSnapshot() throws {
    let bench = try Workbench()
    let kept = try chain(bench)
    let disk = try open(bench.path("top"))
    try disk.grow(to: 3 << 30)
    try disk.put([9], at: (3 << 30) - 1)
    try disk.grow(to: (3 << 30) + 1024)
    let file = try fileBytes(bench.path("top"))
    #expect(Strangeness(file) == kept && number(file, at: 24) == (3 << 30) + 1024)
    #expect(number(file, at: 72) == 1, "the image is open and its refcounts are ahead")
    let start = try disk.bytes(at: 0, count: 1 << 20)
    try disk.snapshot(path: bench.path("sn"))
    try disk.put([5], at: 5)
    try disk.close()
    let old = try fileBytes(bench.path("top"))
    #expect(Strangeness(old) == kept)
    #expect(number(old, at: 72) == 0 && number(old, at: 88) == 0)
    for name in ["top", "sn"] { try bench.expectClean(bench.path(name)) }
    let reader = try open(bench.path("top"), isReadOnly: true)
    #expect(firstDifference(try reader.bytes(at: 0, count: 1 << 20), start) == nil)
    try reader.close()
    try bench.qemuIO(bench.path("top"), ["read -P 9 \((3 << 30) - 1) 1"])
  }

  @Test("a stream to a base and to nothing keeps what is unknown")
  func stream() throws {
    let bench = try Workbench()
    let kept = try chain(bench)
    let bytes = try bench.flatBytes(bench.path("top"))
    var disk = try open(bench.path("top"))
    let base = try #require(try disk.layers().last)
    try disk.streamAll(base: base.id)
    try disk.close()
    try expectKept(bench, kept, bytes, "to the base")
    disk = try open(bench.path("top"))
    try disk.streamAll()
    try disk.close()
    try expectKept(bench, kept, bytes, "to nothing")
    #expect(!(try bench.qemuImg("info", bench.path("top")).contains("backing file:")))
  }

  @Test("an image that was not closed, and a repaired one, keep what is unknown")
  func repair() throws {
    for isOpened in [true, false] {
      let bench = try Workbench()
      try bench.qemuImg("create", "-f", "qcow2", "-o", "lazy_refcounts=on", "top", "1M")
      try bench.qemuIO("top", ["write -P 3 320k 128k"])
      let bytes = try bench.flatBytes(bench.path("top"))
      let kept = try Strangeness.add(to: bench.path("top"), dirty: true)
      if isOpened {
        let disk = try open(bench.path("top"))
        try disk.put(Array(bytes[0..<10]), at: 0)
        try disk.close()
        try expectKept(bench, kept, bytes, "opened")
        continue
      }
      // A leak and the corrupt bit as well: a cluster is counted that nobody uses.
      var file = try fileBytes(bench.path("top"))
      let block = Int(number(file, at: Int(number(file, at: 48))))
      store(1, in: &file, at: block + 2 * 20, bytes: 2)
      store(3, in: &file, at: 72)
      try Data(file).write(to: URL(fileURLWithPath: bench.path("top")))
      let storage = try HostFile.open(
        bench.path("top"), access: .readWrite, locking: .qemu, role: .active)
      let report = try ImageCheck.repair(storage: storage, .all)
      storage.close()
      #expect(report.corruptions == 0 && report.leaks == 0)
      try expectKept(bench, kept, bytes, "repaired")
    }
  }

  @Test("an unknown incompatible feature is refused by the image's own name for it")
  func incompatible() throws {
    let bench = try Workbench()
    _ = try chain(bench)
    var file = try fileBytes(bench.path("top"))
    let row = try #require(
      Data(file).range(of: Data("corrupt bit".utf8), in: 0..<4096)?.lowerBound)
    file[row - 1] = 17
    file.replaceSubrange(row..<row + 11, with: Array("time travel".utf8))
    store(1 << 17, in: &file, at: 72)
    try Data(file).write(to: URL(fileURLWithPath: bench.path("top")))
    for isReadOnly in [true, false] {
      do {
        try open(bench.path("top"), isReadOnly: isReadOnly).close()
        Issue.record("it was opened")
      } catch {
        #expect("\(error)".contains("time travel"))
      }
    }
    #expect(firstDifference(try fileBytes(bench.path("top")), file) == nil)
  }
}
