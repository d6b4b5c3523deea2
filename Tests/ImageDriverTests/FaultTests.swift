import BlockIO
import HostSystem
import Qcow2Format
import TestSupport
import Testing

@testable import ImageDriver

@Suite("Qcow2Image on storage that fails")
struct FaultTests {
  private func work(_ image: Qcow2Image, _ seed: UInt64) throws {
    var random = SeededGenerator(seed: seed)
    for _ in 0..<5 {
      let offset = Int.random(in: 0..<60_000, using: &random)
      try image.put(random.bytes(3000), at: offset)
      if random.oneIn(3) { try image.zero(offset, 2500, .unmap) }
      if random.oneIn(3) { try image.settle() }
    }
    try image.close()
  }

  private func fresh() throws -> SimulatedDisk {
    let disk = SimulatedDisk(seed: 5)
    var options = ImageBuilder.Options(virtualSize: 64 << 10)
    options.clusterSize = 512
    options.refcountBits = 64
    try ImageBuilder.create(on: disk, options)
    return disk
  }

  @Test("each call that fails gives an error, and the image goes on or stops, but never lies")
  func everyCall() throws {
    let seed = Seed.of("everyCall")
    let trial = try fresh()
    let before = trial.callCount
    try work(try Qcow2Image(storage: trial), seed)
    let calls = trial.callCount
    for call in before + 1...calls {
      let disk = try fresh()
      disk.inject(.fails(call: call))
      do {
        try work(try Qcow2Image(storage: disk), seed)
        // Freeing is best effort, so a failing discard is the one thing that goes unsaid.
      } catch let error as ImageError {
        #expect(error.kind == .io, "call \(call): \(error)")
      } catch let error as StorageError {
        // The guest's bytes are the caller's to write.
        #expect(error.kind == .io, "call \(call): \(error)")
      }
      disk.inject(nil)
      // In memory nothing was torn, as the host keeps what it could not write. Read-only, since the
      // storage still refuses to flush.
      try disk.changeRole(to: .backing)
      #expect(throws: Never.self, "call \(call)") { _ = try Qcow2Image(storage: disk).get(0, 512) }
    }
  }

  @Test("a growth that fails at any call leaves the size, and the image's file with its locks")
  func growth() throws {
    func start() throws -> (SimulatedDisk, Qcow2Image) {
      let disk = try fresh()
      let image = try Qcow2Image(storage: disk)
      try image.put([7], at: 5)
      try image.flush()
      return (disk, image)
    }
    let (trial, image) = try start()
    let before = trial.callCount
    _ = try image.grown(to: 1 << 20)
    var stops = 0
    for call in before + 1...trial.callCount {
      let (disk, image) = try start()
      disk.inject(.fails(call: call))
      do {
        _ = try image.grown(to: 1 << 20)
        // The space of the table before is given back by best effort.
      } catch {
        #expect(error.kind == .io, "call \(call): \(error)")
        #expect(image.virtualSize == 64 << 10)
        if disk.isReadOnly { stops += 1 }
      }
      #expect(!disk.isClosed, "call \(call)")
      disk.inject(nil)
      #expect(try image.get(5, 1) == [7], "call \(call)")
    }
    #expect(stops > 1, "the header was not failed")
  }

  @Test("a refcount table that grows while a call fails leaves no leak at its old place")
  func refcountTable() throws {
    let piece = [UInt8](repeating: 7, count: 64 << 10)
    let first = SimulatedDisk(seed: 5)
    var options = ImageBuilder.Options(virtualSize: 8 << 20)
    options.clusterSize = 512
    options.refcountBits = 64
    try ImageBuilder.create(on: first, options)
    // Up to the write before the one that needs a larger table.
    var (start, place, isGrown) = (first.snapshot, 0, false)
    let table = try ImageHeader.read(from: first).refcountTableOffset
    for offset in stride(from: 0, to: 8 << 20, by: piece.count) {
      (start, place) = (first.snapshot, offset)
      let image = try Qcow2Image(storage: first)
      try image.put(piece, at: offset)
      try image.close()
      if try ImageHeader.read(from: first).refcountTableOffset != table {
        isGrown = true
        break
      }
    }
    var call = 0
    while true {
      call += 1
      let disk = SimulatedDisk(seed: 5, durable: start)
      disk.inject(.fails(call: call))
      let image = try? Qcow2Image(storage: disk)
      for _ in 1...2 { _ = try? image?.put(piece, at: place) }
      _ = try? image?.close()
      if disk.callCount < call { break }
      let left = SimulatedDisk(seed: 5, durable: disk.snapshot)
      try Qcow2Image(storage: left).close()
      #expect(try Audit(left).faults == [], "call \(call)")
      let report = try ImageCheck.run(storage: left)
      // The table's old place is used again, and what a failing claim had counted is counted anew.
      #expect(report.findings == [], "call \(call)")
    }
    #expect(isGrown && call > 20 && place > 0, "the table did not grow")
  }

  @Test(
    "power goes, or a call fails, while an L1 table gets more clusters than a refcount block counts",
    arguments: [true, false])
  func longTable(losesPower: Bool) throws {
    let start = try fresh()
    var random = Seed.generator("long table")
    let content = random.bytes(64 << 10)
    let first = try Qcow2Image(storage: start)
    try first.put(content, at: 0)
    try first.close()
    // 74 blocks of 64 counts, of which the first one counts 64, for 4608 clusters of table.
    let size: UInt64 = 9 << 30
    var (call, sizes) = (0, Set<UInt64>())
    while true {
      call += 1
      let disk = SimulatedDisk(seed: UInt64(call), durable: start.snapshot)
      let image = try Qcow2Image(storage: disk)
      let fault = disk.callCount + call
      disk.inject(losesPower ? .losesPower(call: fault) : .fails(call: fault))
      let grown = try? image.grown(to: size)
      if !losesPower {
        disk.inject(nil)
        _ = try? (grown ?? image).close()
      }
      for crash in 0..<(losesPower ? 3 : 1) as Range<UInt64> {
        let left = SimulatedDisk(
          seed: crash,
          durable: losesPower ? disk.crash(seed: UInt64(call) * 4 + crash).snapshot : disk.snapshot)
        let report = try ImageCheck.run(storage: left)
        #expect(
          report.corruptions == 0 && report.checkErrors == 0, "call \(call): \(report.findings)")
        let after = try Qcow2Image(storage: left)
        sizes.insert(after.virtualSize)
        #expect(try after.get(0, 64 << 10) == content, "call \(call)")
        if after.virtualSize == size {
          try after.put([9], at: Int(size) - 1)
          try after.close()
          #expect(try ImageCheck.run(storage: left).corruptions == 0, "call \(call)")
        }
      }
      if grown != nil, disk.callCount < fault { break }
    }
    #expect(call > 80 && sizes == [64 << 10, size])
  }

  @Test("a full disk is an error of no space, and writes go on once there is room")
  func noSpace() throws {
    let disk = try fresh()
    let image = try Qcow2Image(storage: disk)
    try image.put([1], at: 0)
    try image.flush()
    disk.inject(.isFull(bytes: try disk.size()))
    do {
      try image.put([UInt8](repeating: 2, count: 4096), at: 8192)
      Issue.record("written to a full disk")
    } catch let error as StorageError {
      #expect(error.kind == .noSpace)
    } catch let error as ImageError {
      #expect(error.kind == .noSpace)
    }
    disk.inject(nil)
    try image.put([UInt8](repeating: 3, count: 4096), at: 8192)
    #expect(try image.get(8192, 4096) == [UInt8](repeating: 3, count: 4096))
    try image.close()
    #expect(try Audit(disk).faults == [])
  }

  @Test("metadata that is marked as free is found before it is overwritten")
  func overlap() throws {
    let disk = try fresh()
    let header = try ImageHeader.read(from: disk)
    let block = try disk.bytes(at: header.refcountTableOffset, count: 8)
    var offset: UInt64 = 0
    for byte in block { offset = offset << 8 | UInt64(byte) }
    let count = Int(header.geometry.clusterSize)
    try disk.put([UInt8](repeating: 0, count: count), at: offset, intent: .metadata)
    let image = try Qcow2Image(storage: disk)
    #expect(throws: ImageError.self) { try image.put([1], at: 0) }
    var marked = header
    marked.incompatibleFeatures |= 3
    #expect(try ImageHeader.read(from: disk) == marked)
    #expect(try image.get(0, 10) == [UInt8](repeating: 0, count: 10))
  }
}
