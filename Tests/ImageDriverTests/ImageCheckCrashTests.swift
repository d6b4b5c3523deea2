import BlockIO
import HostSystem
import ImageDriver
import TestSupport
import Testing

@Suite("What a check says of images that went through something")
struct ImageCheckCrashTests {
  static let size: UInt64 = 1 << 20

  static func options(clusterSize: Int, refcountBits: Int) -> ImageBuilder.Options {
    var options = ImageBuilder.Options(virtualSize: size)
    options.clusterSize = clusterSize
    options.refcountBits = refcountBits
    return options
  }

  /// Writes, zeroes and discards at random places; a flush now and then, with what it freed released.
  static func scribble(_ image: Qcow2Image, _ random: inout SeededGenerator, count: Int) throws {
    for step in 0..<count {
      let start = UInt64.random(in: 0..<size - 512, using: &random)
      let length = UInt64.random(in: 1...min(60_000, size - start), using: &random)
      let range = GuestRange(offset: GuestOffset(start), length: length)
      switch Int.random(in: 0..<4, using: &random) {
      case 0:
        let mode: ZeroMode = random.oneIn(2) ? .unmap : .keepAllocation
        let cluster = UInt64(image.clusterSize)
        let whole = range.widened(to: cluster).clamped(toSize: size)
        _ = try image.writeZeroes(whole, mode: mode, below: .mayHaveData)
      default:
        switch try image.beginWrite(range) {
        case .inPlace(let host, let length):
          try image.storage.put(random.bytes(Int(length)), at: host.rawValue)
        case .allocate(let ticket):
          try image.storage.put(random.bytes(Int(ticket.guest.length)), at: ticket.host.rawValue)
          // Some are forgotten, as after an error.
          if !random.oneIn(8) { try ticket.commit() }
        }
      }
      if step % 5 == 4 {
        try image.flush()
        try image.releaseFreed()
      }
    }
    try image.close()
  }

  @Test(
    "power that goes at any call leaves leaks at worst, and a repair leaves nothing",
    arguments: [(512, 1), (512, 16), (4096, 64), (65536, 16)])
  func crashes(clusterSize: Int, refcountBits: Int) throws {
    var step = 1
    while true {
      let seed = UInt64(step) &* 7919 &+ UInt64(clusterSize)
      let disk = SimulatedDisk(seed: seed)
      try ImageBuilder.create(
        on: disk, Self.options(clusterSize: clusterSize, refcountBits: refcountBits))
      let start = disk.callCount
      disk.inject(.losesPower(call: start + step))
      var isDone = false
      do {
        var random = SeededGenerator(seed: UInt64(clusterSize))
        try Self.scribble(Qcow2Image(storage: disk), &random, count: 24)
        isDone = true
      } catch is ImageError {
        // The power is gone; what counts is what is left.
      } catch is StorageError {}
      for crash in 0..<4 as Range<UInt64> {
        let left = disk.crash(seed: seed &+ crash)
        let report = try ImageCheck.run(storage: left)
        #expect(
          report.corruptions == 0 && report.checkErrors == 0,
          "call \(step), crash \(crash): \(report.findings)")
        if isDone { #expect(report.leaks == 0, "\(report.findings)") }
        #expect(try ImageCheck.repair(storage: left, .leaks).isClean)
      }
      disk.inject(nil)
      if isDone { return }
      step += step < 20 ? 1 : 7
    }
  }

  @Test("bytes that are wrong at random are reported, and never stop the program")
  func hostile() throws {
    var random = Seed.generator("hostile images")
    for round in 0..<300 {
      let clusterSize = 512 << Int.random(in: 0..<4, using: &random)
      let storage = MemoryStorage()
      try ImageBuilder.create(on: storage, Self.options(clusterSize: clusterSize, refcountBits: 16))
      var scribbler = SeededGenerator(seed: UInt64(round))
      try Self.scribble(Qcow2Image(storage: storage), &scribbler, count: 4)
      #expect(try ImageCheck.run(storage: storage).isClean)
      let clusters = try storage.size() / UInt64(clusterSize)
      for _ in 0..<Int.random(in: 1...20, using: &random) {
        // Tables are near the start; the first bytes of the header decide whether it is one at all.
        let place = UInt64.random(
          in: 0..<min(64, clusters) * UInt64(clusterSize) / 8, using: &random)
        let bits = UInt64.random(in: 0...(.max), using: &random)
        let value = bits >> UInt64.random(in: 0..<64, using: &random)
        let bytes = (0..<8).map { UInt8(truncatingIfNeeded: value >> UInt64(56 - 8 * $0)) }
        try storage.put(bytes, at: max(place * 8, 24))
      }
      do {
        let before = try storage.bytes(at: 0, count: Int(storage.size()))
        let report = try ImageCheck.run(storage: storage)
        let after = try ImageCheck.repair(storage: storage, .leaks)
        if report.checkErrors > 0 || report.corruptions > 0, after == report {
          #expect(try storage.bytes(at: 0, count: before.count) == before)
        }
      } catch is ImageError {
        // The header is no header any more.
      }
    }
  }
}
