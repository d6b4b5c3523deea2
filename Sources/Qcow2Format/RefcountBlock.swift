/// Refcounts in a refcount block: numbers of 2^order bits each. See "Host cluster management".
///
/// Numbers of less than a byte fill a byte from its least significant bit; wider ones are
/// big-endian. `index` is below `Geometry.refcountsPerBlock`, or at least inside of the bytes.
package enum RefcountBlock {
  /// The refcount at `index`.
  package static func value(in block: RawSpan, index: Int, order: Int) -> UInt64 {
    switch order {
    case 0...2:
      let (byte, shift, mask) = position(index, order)
      return UInt64((BigEndian.uint8(block, at: byte) >> shift) & mask)
    case 3: return UInt64(BigEndian.uint8(block, at: index))
    case 4: return UInt64(BigEndian.uint16(block, at: index * 2))
    case 5: return UInt64(BigEndian.uint32(block, at: index * 4))
    case 6: return BigEndian.uint64(block, at: index * 8)
    default: preconditionFailure("refcount order \(order) does not exist")
    }
  }

  /// Sets the refcount at `index` to `value`, which fits the width.
  package static func set(
    _ value: UInt64, in block: inout MutableRawSpan, index: Int, order: Int
  ) {
    checkFit(value, order)
    switch order {
    case 0...2:
      let (byte, shift, mask) = position(index, order)
      let rest = BigEndian.uint8(block.bytes, at: byte) & ~(mask << shift)
      BigEndian.store(rest | UInt8(value) << shift, in: &block, at: byte)
    case 3: BigEndian.store(UInt8(value), in: &block, at: index)
    case 4: BigEndian.store(UInt16(value), in: &block, at: index * 2)
    case 5: BigEndian.store(UInt32(value), in: &block, at: index * 4)
    default: BigEndian.store(value, in: &block, at: index * 8)
    }
  }

  /// Sets the refcount at `index` to `value`, which fits the width.
  package static func set(_ value: UInt64, in block: inout [UInt8], index: Int, order: Int) {
    checkFit(value, order)
    switch order {
    case 0...2:
      let (byte, shift, mask) = position(index, order)
      block[byte] = block[byte] & ~(mask << shift) | UInt8(value) << shift
    case 3: block[index] = UInt8(value)
    case 4: BigEndian.store(UInt16(value), in: &block, at: index * 2)
    case 5: BigEndian.store(UInt32(value), in: &block, at: index * 4)
    default: BigEndian.store(value, in: &block, at: index * 8)
    }
  }

  private static func checkFit(_ value: UInt64, _ order: Int) {
    precondition((0...6).contains(order), "refcount order \(order) does not exist")
    precondition(value <= UInt64.max >> UInt64(64 - (1 << order)), "the refcount is too narrow")
  }

  /// The byte, the shift inside of it and the mask before shifting, for less than eight bits.
  private static func position(_ index: Int, _ order: Int) -> (Int, UInt8, UInt8) {
    let bit = index << order
    return (bit >> 3, UInt8(bit & 7), UInt8((1 << (1 << order)) - 1))
  }
}
