import BlockIO
import Foundation
import HostSystem
import ImageDriver
import TestSupport
import Testing

@testable import Chain

/// Power goes at every call that an operation makes; afterwards the disk has to hold its bytes.
@Suite("Crashes of a disk")
struct DiskCrashTests {
  static let size = 1 << 20

  /// Three layers with data in each, closed and durable, and the bytes that they show together.
  func makeChain(
    seed: UInt64, version: Int = 3, sharesBlocks: Bool = false
  ) throws -> (SimulatedFiles, [UInt8]) {
    let files = SimulatedFiles(sharesBlocks: sharesBlocks)
    var random = SeededGenerator(seed: seed)
    var model = [UInt8](repeating: 0, count: Self.size)
    var below: String?
    for name in ["/base", "/mid", "/top"] {
      let storage = try files.create(name, like: SimulatedDisk(seed: 0), isLocked: false)
      var options = ImageBuilder.Options(
        virtualSize: UInt64(Self.size),
        backing: below.map { BackingReference(name: $0, format: "qcow2") })
      options.clusterSize = 4096
      options.version = version
      try ImageBuilder.create(on: storage, options)
      try files.flushName(of: name)
      let disk = try open(files, name)
      try scribble(disk, &model, &random, count: 12)
      try disk.close()
      below = name
    }
    files.settle()
    return (files, model)
  }

  func open(_ files: SimulatedFiles, _ name: String, isReadOnly: Bool = false) throws -> Disk {
    try Disk.open(
      DeviceConfiguration(name: "vda", image: .qcow2(path: name), isReadOnly: isReadOnly),
      files: files)
  }

  func scribble(
    _ disk: Disk, _ model: inout [UInt8], _ random: inout SeededGenerator, count: Int
  ) throws {
    for _ in 0..<count {
      let start = Int.random(in: 0..<Self.size - 1, using: &random)
      let length = Int.random(in: 1...min(40_000, Self.size - start), using: &random)
      let bytes = random.oneIn(4) ? [UInt8](repeating: 0, count: length) : random.bytes(length)
      try disk.put(bytes, at: UInt64(start))
      model.replaceSubrange(start..<start + length, with: bytes)
    }
  }

  /// Opens what a crash left and compares; the images have to be consistent too.
  func expectBytes(
    _ files: SimulatedFiles, _ name: String, _ model: [UInt8], _ says: String
  ) throws {
    let disk = try open(files, name)
    if let difference = firstDifference(try disk.allBytes(), model) {
      Issue.record("\(says): \(difference)")
    }
    // It can be written to, and closes clean.
    try disk.put([1], at: 0)
    try disk.close()
    // Once a call is enough for QEMU, which has to be started each time.
    if says.hasSuffix("crash 0"), let disk = files.disk(name), ToolAvailability.has("qemu-img") {
      try expectNoCorruption(disk, says)
    }
  }

  /// QEMU finds at most leaks (status 3); anything else is damage.
  func expectNoCorruption(_ disk: SimulatedDisk, _ says: String) throws {
    let place = try TemporaryDirectory()
    let bytes = disk.snapshot
    try Data(bytes.bytes(0, Int(bytes.count))).write(to: URL(fileURLWithPath: place.file("image")))
    // The layers below exist in memory only.
    let image =
      #"json:{"driver":"qcow2","backing":null,"file":{"driver":"file","filename":""#
      + place.file("image") + #""}}"#
    let result = try TestSupport.run("qemu-img", "check", image)
    #expect([0, 3].contains(result.status), "\(says): \(result)")
  }

  /// Runs an operation with the power going at each of its calls to one disk, until it goes through.
  func atEachCall(
    seed: UInt64, version: Int = 3, sharesBlocks: Bool = false,
    of target: (SimulatedFiles) -> SimulatedDisk?,
    operation: (SimulatedFiles, Disk) throws -> Void,
    check: (SimulatedFiles, [UInt8], Bool, String) throws -> Void
  ) throws {
    var step = 1
    while true {
      let (files, model) = try makeChain(
        seed: seed, version: version, sharesBlocks: sharesBlocks)
      let disk = try open(files, "/top")
      let start = target(files)?.callCount ?? 0
      if let victim = target(files) {
        victim.inject(.losesPower(call: start + step))
      } else {
        files.injectIntoNew(.losesPower(call: step))
      }
      var isDone = false
      do {
        try operation(files, disk)
        isDone = true
      } catch is ChainError {
        // The power is gone; what counts is what is left.
      }
      for crash in 0..<3 as Range<UInt64> {
        let left = files.crash(seed: seed &* 1000 &+ UInt64(step) &* 10 &+ crash)
        try check(left, model, isDone, "seed \(seed), call \(step), crash \(crash)")
      }
      target(files)?.inject(nil)
      // Closing fails after a failed flush; the disk is only put away here.
      try? disk.close()
      if isDone { return }
      step += step < 12 ? 1 : 3
    }
  }

  @Test(
    "a stream and its rebase may stop anywhere, whether files share blocks or not",
    arguments: [1, 2, 3] as [UInt64], [false, true])
  func stream(seed: UInt64, sharesBlocks: Bool) throws {
    let base = seed == 3 ? nil : LayerID(rawValue: 0)
    try atEachCall(
      seed: seed, version: seed == 2 ? 2 : 3, sharesBlocks: sharesBlocks, of: { $0.disk("/top") },
      operation: { _, disk in
        try disk.streamAll(base: base)
      },
      check: { files, model, isDone, says in
        try expectBytes(files, "/top", model, says)
        if isDone {
          let disk = try open(files, "/top", isReadOnly: true)
          #expect(try disk.layers().count == (base == nil ? 1 : 2), "\(says)")
          try disk.close()
        }
      })
  }

  @Test("a snapshot may stop at any call to the old image", arguments: [4, 5] as [UInt64])
  func snapshotOld(seed: UInt64) throws {
    var flushed: [UInt8] = []
    try atEachCall(
      seed: seed, of: { $0.disk("/top") },
      operation: { _, disk in
        try disk.snapshot(path: "/new")
        var model = try disk.allBytes()
        var random = SeededGenerator(seed: seed)
        try scribble(disk, &model, &random, count: 3)
        try disk.flush()
        flushed = model
      },
      check: { files, model, isDone, says in
        if isDone {
          try expectBytes(files, "/new", flushed, says)
          files.settle()
        }
        try expectBytes(files, "/top", model, says)
      })
  }

  @Test("a snapshot may stop at any call to the new image", arguments: [6, 7] as [UInt64])
  func snapshotNew(seed: UInt64) throws {
    try atEachCall(
      seed: seed, of: { $0.disk("/new") },
      operation: { files, disk in
        let before = try disk.allBytes()
        do {
          try disk.snapshot(path: "/new")
        } catch {
          // No file is left, and the disk goes on as it was.
          #expect(files.names == ["/base", "/mid", "/top"])
          #expect(try disk.layers().count == 3)
          #expect(try disk.allBytes() == before)
          throw error
        }
      },
      check: { files, model, isDone, says in
        try expectBytes(files, isDone ? "/new" : "/top", model, says)
      })
  }

  @Test("a flushed write survives any crash", arguments: [8, 9, 10] as [UInt64])
  func flushedWrites(seed: UInt64) throws {
    var (files, model) = try makeChain(seed: seed)
    var random = SeededGenerator(seed: seed)
    for round in 0..<12 as Range<UInt64> {
      let disk = try open(files, "/top")
      try scribble(disk, &model, &random, count: 6)
      try disk.discard(GuestRange(offset: GuestOffset(round * 8192), length: 8192))
      model.replaceSubrange(
        Int(round) * 8192..<Int(round + 1) * 8192, with: repeatElement(0, count: 8192))
      try disk.flush()
      files = files.crash(seed: seed &* 100 &+ round)
      try disk.close()
      try expectNoCorruption(try #require(files.disk("/top")), "seed \(seed), round \(round)")
      let again = try open(files, "/top", isReadOnly: true)
      #expect(firstDifference(try again.allBytes(), model) == nil, "seed \(seed), round \(round)")
      try again.close()
      files.settle()
    }
  }
}
