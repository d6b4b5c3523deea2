import Testing

@testable import Qcow2Format

@Suite("RefcountBlock", .tags(.format))
struct RefcountBlockTests {
  @Test("a refcount that was set is read, and its neighbours stay", arguments: 0...6)
  func roundTrip(order: Int) {
    var generator = SeededGenerator.announced("refcounts")
    let count = (512 * 8) >> order
    let maximum = UInt64.max >> UInt64(64 - (1 << order))
    var model = [UInt64](repeating: 0, count: count)
    var inArray = [UInt8](repeating: 0, count: 512)
    var inSpan = [UInt8](repeating: 0, count: 512)
    for _ in 0..<3000 {
      let index = Int.random(in: 0..<count, using: &generator)
      let value = UInt64.random(in: 0...maximum, using: &generator)
      model[index] = value
      RefcountBlock.set(value, in: &inArray, index: index, order: order)
      var span = inSpan.mutableSpan
      var raw = span.mutableBytes
      RefcountBlock.set(value, in: &raw, index: index, order: order)
    }
    #expect(inArray == inSpan)
    let read = (0..<count).map {
      RefcountBlock.value(in: inArray.span.bytes, index: $0, order: order)
    }
    #expect(read == model)
  }

  @Test("narrow refcounts start at the least significant bit, wide ones are big-endian")
  func layout() {
    var bytes: [UInt8] = [0, 0, 0, 0, 0, 0, 0, 0]
    RefcountBlock.set(1, in: &bytes, index: 1, order: 0)
    #expect(bytes[0] == 0b10)
    RefcountBlock.set(3, in: &bytes, index: 3, order: 1)
    #expect(bytes[0] == 0b1100_0010)
    RefcountBlock.set(5, in: &bytes, index: 2, order: 2)
    #expect(bytes[1] == 5)
    RefcountBlock.set(0x1234, in: &bytes, index: 1, order: 4)
    #expect(Array(bytes[2...3]) == [0x12, 0x34])
  }
}
