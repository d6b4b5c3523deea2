// The few things that bytes under a span are asked for and the standard library does not have yet.
// The pointers end with each call: nothing is stored, and every length comes from the span.

internal import Glibc

extension MutableRawSpan {
  /// The bytes of `range`, to be written to; this span is lent to the slice until that is gone.
  @_lifetime(&self)
  package mutating func slice(_ range: Range<Int>) -> MutableRawSpan {
    _mutatingExtracting(range)
  }

  /// Makes every byte of `range` zero.
  package mutating func fillWithZeroes(_ range: Range<Int>) {
    precondition(range.lowerBound >= 0 && range.upperBound <= byteCount, "outside the span")
    if range.isEmpty { return }
    // In bounds: checked above. Alive: inside the span's own closure.
    unsafe withUnsafeMutableBytes { bytes in
      if let start = bytes.baseAddress {
        unsafe memset(start + range.lowerBound, 0, range.count)
      }
    }
  }

  /// Makes every byte zero.
  package mutating func fillWithZeroes() { fillWithZeroes(0..<byteCount) }

  /// Writes `source` to the bytes from `offset` on, where it must fit.
  package mutating func copy(_ source: RawSpan, at offset: Int = 0) {
    precondition(
      offset >= 0 && offset <= byteCount && source.byteCount <= byteCount - offset,
      "outside the span")
    if source.isEmpty { return }
    // In bounds: checked above. Alive: inside both spans' own closures.
    unsafe withUnsafeMutableBytes { target in
      unsafe source.withUnsafeBytes { bytes in
        if let to = target.baseAddress, let from = bytes.baseAddress {
          unsafe memmove(to + offset, from, bytes.count)
        }
      }
    }
  }
}

extension RawSpan {
  /// Every byte is zero; true for no bytes.
  package var isAllZero: Bool {
    // In bounds: the second operand starts one byte on and is one byte shorter. Alive: inside the
    // span's own closure.
    unsafe withUnsafeBytes { bytes in
      guard let start = bytes.baseAddress, bytes.count > 0 else { return true }
      if unsafe bytes[0] != 0 { return false }
      return unsafe memcmp(start, start + 1, bytes.count - 1) == 0
    }
  }

  /// A copy of the bytes.
  package func copied() -> [UInt8] {
    // Alive: the array is filled inside the span's own closure.
    unsafe withUnsafeBytes { bytes in unsafe Array(bytes) }
  }
}

extension Array where Element == UInt8 {
  /// The bytes, lent out for reading.
  package var rawSpan: RawSpan {
    @_lifetime(borrow self)
    get {
      // Safe: UInt8 has no padding; `Span.bytes` counts as unsafe for types that may have some.
      unsafe span.bytes
    }
  }

  /// The bytes, lent out for writing.
  package var mutableRawSpan: MutableRawSpan {
    @_lifetime(&self)
    mutating get {
      // Alive: the closure made the storage this array's own, and the array is lent to the result, so
      // nobody else can change or move it before the span is gone.
      let memory = unsafe withUnsafeMutableBytes { unsafe $0 }
      let bytes = unsafe MutableRawSpan(_unsafeBytes: memory)
      return unsafe _overrideLifetime(bytes, mutating: &self)
    }
  }
}
