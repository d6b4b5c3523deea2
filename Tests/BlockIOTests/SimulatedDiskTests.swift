import BlockIO
import HostSystem
import TestSupport
import Testing

@Suite struct SimulatedDiskTests {
  @Test("what was flushed is there after every crash, what was not is there by whole sectors")
  func crashes() throws {
    var random = Seed.generator("crashes")
    let disk = SimulatedDisk(seed: random.next())
    let old = random.bytes(64 * 512)
    let new = random.bytes(64 * 512)
    try disk.put(old, at: 0)
    try disk.flush()
    try disk.put(Array(new[512..<16 * 512]), at: 512)
    var kept = 0
    var lost = 0
    for seed in 0..<50 as Range<UInt64> {
      let left = disk.crash(seed: seed)
      for sector in 0..<64 {
        let range = sector * 512..<(sector + 1) * 512
        let found = try left.bytes(at: UInt64(range.lowerBound), count: 512)
        let isOld = found == Array(old[range])
        let isNew = found == Array(new[range])
        if (1..<16).contains(sector) {
          #expect(isOld || isNew)
          kept += isNew ? 1 : 0
          lost += isOld ? 1 : 0
        } else {
          #expect(isOld)
        }
      }
    }
    #expect(kept > 0 && lost > 0)
  }

  @Test("a sector that was written twice may hold any of its versions")
  func versions() throws {
    let disk = SimulatedDisk(seed: 1)
    try disk.put([UInt8](repeating: 0, count: 512), at: 0)
    try disk.flush()
    try disk.put([UInt8](repeating: 1, count: 512), at: 0)
    try disk.put([UInt8](repeating: 2, count: 512), at: 0)
    var seen = Set<UInt8>()
    for seed in 0..<100 as Range<UInt64> {
      seen.insert(try disk.crash(seed: seed).bytes(at: 0, count: 1)[0])
    }
    #expect(seen == [0, 1, 2])
  }

  @Test("the call that is to fail fails, and the power stays away once it is gone")
  func faults() throws {
    let disk = SimulatedDisk(seed: 1)
    disk.inject(.fails(call: 2))
    try disk.put([1], at: 0)
    #expect(throws: StorageError.self) { try disk.put([2], at: 0) }
    try disk.put([3], at: 0)
    disk.inject(.losesPower(call: disk.callCount + 1))
    for _ in 0..<3 { #expect(throws: StorageError.self) { try disk.bytes(at: 0, count: 1) } }
    disk.inject(.isFull(bytes: 4096))
    try disk.put([1], at: 4095)
    let error = try #require(throws: StorageError.self) { try disk.put([1], at: 4096) }
    #expect(error.kind == .noSpace)
  }

  @Test("memory keeps what it is given, and tells untouched pages as holes")
  func memory() throws {
    let memory = MemoryStorage()
    try memory.put([1, 2, 3], at: 10_000)
    #expect(try memory.bytes(at: 9_999, count: 6) == [0, 1, 2, 3, 0, 0])
    #expect(try memory.size() == 10_003)
    #expect(try memory.nextData(at: .zero) == HostOffset(8192))
    #expect(try memory.nextHole(at: HostOffset(8192)) == HostOffset(10_003))
    try memory.writeZeroes(at: HostOffset(10_001), length: 8192)
    #expect(try memory.bytes(at: 10_000, count: 3) == [1, 0, 0])
    #expect(try memory.size() == 18_193)
    try memory.truncate(to: 10_000)
    try memory.truncate(to: 20_000)
    #expect(try memory.bytes(at: 10_000, count: 1) == [0])
  }
}
