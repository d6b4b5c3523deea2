/// Big-endian numbers at byte offsets: the only way this module reads and writes on-disk fields.
///
/// Offsets are the caller's own arithmetic, checked against Geometry or a byte count before; one
/// outside of the bytes is a broken invariant and stops the program instead of touching memory.
package enum BigEndian {
  /// The byte at `offset`.
  package static func uint8(_ bytes: RawSpan, at offset: Int) -> UInt8 {
    // In bounds: the span checks offset and size itself. Any bits are a valid UInt8.
    unsafe bytes.unsafeLoadUnaligned(fromByteOffset: offset, as: UInt8.self)
  }

  /// The two-byte number at `offset`.
  package static func uint16(_ bytes: RawSpan, at offset: Int) -> UInt16 {
    // In bounds: the span checks offset and size itself. Any bits are a valid UInt16.
    UInt16(bigEndian: unsafe bytes.unsafeLoadUnaligned(fromByteOffset: offset, as: UInt16.self))
  }

  /// The four-byte number at `offset`.
  package static func uint32(_ bytes: RawSpan, at offset: Int) -> UInt32 {
    // In bounds: the span checks offset and size itself. Any bits are a valid UInt32.
    UInt32(bigEndian: unsafe bytes.unsafeLoadUnaligned(fromByteOffset: offset, as: UInt32.self))
  }

  /// The eight-byte number at `offset`.
  package static func uint64(_ bytes: RawSpan, at offset: Int) -> UInt64 {
    // In bounds: the span checks offset and size itself. Any bits are a valid UInt64.
    UInt64(bigEndian: unsafe bytes.unsafeLoadUnaligned(fromByteOffset: offset, as: UInt64.self))
  }

  /// The two-byte number at `offset`.
  package static func uint16(_ bytes: [UInt8], at offset: Int) -> UInt16 {
    UInt16(bytes[offset]) << 8 | UInt16(bytes[offset + 1])
  }

  /// The four-byte number at `offset`.
  package static func uint32(_ bytes: [UInt8], at offset: Int) -> UInt32 {
    UInt32(uint16(bytes, at: offset)) << 16 | UInt32(uint16(bytes, at: offset + 2))
  }

  /// The eight-byte number at `offset`.
  package static func uint64(_ bytes: [UInt8], at offset: Int) -> UInt64 {
    UInt64(uint32(bytes, at: offset)) << 32 | UInt64(uint32(bytes, at: offset + 4))
  }

  /// Writes `value` at `offset`, one byte.
  package static func store(_ value: UInt8, in bytes: inout MutableRawSpan, at offset: Int) {
    bytes.storeBytes(of: value, toByteOffset: offset, as: UInt8.self)
  }

  /// Writes `value` at `offset`, two bytes.
  package static func store(_ value: UInt16, in bytes: inout MutableRawSpan, at offset: Int) {
    bytes.storeBytes(of: value.bigEndian, toByteOffset: offset, as: UInt16.self)
  }

  /// Writes `value` at `offset`, four bytes.
  package static func store(_ value: UInt32, in bytes: inout MutableRawSpan, at offset: Int) {
    bytes.storeBytes(of: value.bigEndian, toByteOffset: offset, as: UInt32.self)
  }

  /// Writes `value` at `offset`, eight bytes.
  package static func store(_ value: UInt64, in bytes: inout MutableRawSpan, at offset: Int) {
    bytes.storeBytes(of: value.bigEndian, toByteOffset: offset, as: UInt64.self)
  }

  /// Writes `value` at `offset`, two bytes.
  package static func store(_ value: UInt16, in bytes: inout [UInt8], at offset: Int) {
    bytes[offset] = UInt8(truncatingIfNeeded: value >> 8)
    bytes[offset + 1] = UInt8(truncatingIfNeeded: value)
  }

  /// Writes `value` at `offset`, four bytes.
  package static func store(_ value: UInt32, in bytes: inout [UInt8], at offset: Int) {
    store(UInt16(truncatingIfNeeded: value >> 16), in: &bytes, at: offset)
    store(UInt16(truncatingIfNeeded: value), in: &bytes, at: offset + 2)
  }

  /// Writes `value` at `offset`, eight bytes.
  package static func store(_ value: UInt64, in bytes: inout [UInt8], at offset: Int) {
    store(UInt32(truncatingIfNeeded: value >> 32), in: &bytes, at: offset)
    store(UInt32(truncatingIfNeeded: value), in: &bytes, at: offset + 4)
  }

  /// A copy of the bytes in `range`, which lies inside of the span.
  package static func copy(_ bytes: RawSpan, _ range: Range<Int>) -> [UInt8] {
    // Alive: the pointer is used inside of the closure only, and the array copies from it.
    unsafe bytes.extracting(range).withUnsafeBytes { unsafe [UInt8]($0) }
  }
}
