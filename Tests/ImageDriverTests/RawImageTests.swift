import BlockIO
import HostSystem
import TestSupport
import Testing

@testable import ImageDriver

@Suite("RawImage")
struct RawImageTests {
  @Test(
    "a size that is no multiple of 512 is rounded up as in QEMU",
    arguments: [
      (0, 0), (1, 512), (511, 512), (512, 512), (513, 1024), (1000, 1024),
    ])
  func size(_ bytes: Int, _ expected: UInt64) throws {
    let content = [UInt8](repeating: 7, count: bytes)
    let image = try RawImage(storage: MemoryStorage(bytes: content))
    #expect(image.virtualSize == expected)
    let padding = [UInt8](repeating: 0, count: Int(expected) - bytes)
    #expect(try image.get(0, Int(expected)) == content + padding)
  }

  @Test("writes go in place, zeroes read zero, and neighbours stay")
  func writes() throws {
    let storage = MemoryStorage(bytes: [UInt8](repeating: 1, count: 1 << 20))
    let image = try RawImage(storage: storage)
    var model = ByteModel(bytes: [UInt8](repeating: 1, count: 1 << 20))
    var random = Seed.generator("raw writes")
    for _ in 0..<60 {
      let offset = Int.random(in: 0..<1 << 20, using: &random)
      let count = Int.random(in: 1...min(70_000, (1 << 20) - offset), using: &random)
      if random.oneIn(2) {
        let bytes = random.bytes(count)
        model.write(bytes, at: offset)
        try image.put(bytes, at: offset)
      } else {
        model.zero(guestRange(offset, count))
        try image.zero(offset, count, random.oneIn(2) ? .unmap : .keepAllocation)
      }
    }
    #expect(try model.firstDifference(from: image.get(0, 1 << 20), at: 0) == nil)
    #expect(try model.firstDifference(from: storage.bytes(at: 0, count: 1 << 20), at: 0) == nil)
  }

  @Test("a hole is told as zero")
  func holes() throws {
    let storage = MemoryStorage()
    try storage.truncate(to: 1 << 20)
    try storage.put([1], at: 512 << 10)
    let image = try RawImage(storage: storage)
    let first = try image.mapping(at: .zero, upTo: 1 << 20)
    #expect(first == MappedExtent(mapping: .zero, length: 512 << 10))
    let second = try image.mapping(at: GuestOffset(512 << 10), upTo: 512 << 10)
    #expect(second.mapping == .data(HostOffset(512 << 10)))
    #expect(second.length < 512 << 10)
  }
}
