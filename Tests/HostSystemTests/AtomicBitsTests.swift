import Foundation
import Testing

@testable import HostSystem

@Suite("AtomicBits")
struct AtomicBitsTests {
  /// Byte by byte, the first bit lowest.
  private func bytes(_ ranges: [ClosedRange<Int>], count: Int) -> [UInt8] {
    var bytes = [UInt8](repeating: 0, count: count)
    for range in ranges { for bit in range { bytes[bit / 8] |= 1 << UInt8(bit % 8) } }
    return bytes
  }

  @Test(
    "exactly the bits of a range are set, at every edge of a word",
    arguments: [
      0...0, 63...63, 64...64, 0...63, 63...64, 1...126, 64...191, 5...199, 199...199,
    ])
  func set(_ range: ClosedRange<Int>) throws {
    let bits = try #require(AtomicBits(count: 200))
    #expect(bits.isClear(bytesFrom: 0, count: 32))
    bits.set(range)
    bits.set(range)
    #expect(bits.bytes(from: 0, count: 32) == bytes([range], count: 32))
    for start in stride(from: 0, to: 32, by: 8) {
      let part = Array(bytes([range], count: 32)[start..<start + 8])
      #expect(bits.bytes(from: start, count: 8) == part)
      #expect(bits.isClear(bytesFrom: start, count: 8) == part.allSatisfy { $0 == 0 })
    }
    bits.clear()
    #expect(bits.isClear(bytesFrom: 0, count: 32))
  }

  @Test("behind the end there are zeroes", arguments: [0, 1, 63, 64, 65])
  func end(count: Int) throws {
    let bits = try #require(AtomicBits(count: count))
    if count > 0 { bits.set(0...count - 1) }
    #expect(
      bits.bytes(from: 0, count: 64) == bytes(count > 0 ? [0...count - 1] : [], count: 64))
    #expect(bits.isClear(bytesFrom: 800, count: 64))
    #expect(bits.bytes(from: 800, count: 8) == [UInt8](repeating: 0, count: 8))
  }

  @Test("threads that set bits of the same words lose none")
  func threads() throws {
    let bits = try #require(AtomicBits(count: 64 * 100))
    let workers = try (0..<8).map { number in
      try Worker(name: "bits-\(number)") {
        for bit in stride(from: number, to: 6400, by: 8) { bits.set(bit...bit) }
      }
    }
    for worker in workers { worker.join() }
    #expect(bits.bytes(from: 0, count: 800) == [UInt8](repeating: 255, count: 800))
  }
}
