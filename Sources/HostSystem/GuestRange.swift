/// A run of bytes of the disk that the guest sees, possibly empty.
package struct GuestRange: Hashable, Sendable, CustomStringConvertible {
  /// Where it starts.
  package var offset: GuestOffset
  /// How many bytes it holds.
  package var length: UInt64

  /// The `length` bytes from `offset` on; their end must fit in 64 bits.
  package init(offset: GuestOffset, length: UInt64) {
    precondition(offset.rawValue <= UInt64.max - length, "a guest range ends beyond 64 bits")
    self.offset = offset
    self.length = length
  }

  /// The bytes from `start` up to and without `end`, which must not lie before it.
  package init(from start: GuestOffset, to end: GuestOffset) {
    precondition(start <= end, "a guest range ends before it starts")
    self.init(offset: start, length: end - start)
  }

  /// The first byte behind the range.
  package var end: GuestOffset { offset + length }
  /// Holds no byte.
  package var isEmpty: Bool { length == 0 }

  /// The byte at `place` lies in the range.
  package func contains(_ place: GuestOffset) -> Bool { offset <= place && place < end }

  /// The two ranges share a byte.
  package func overlaps(_ other: GuestRange) -> Bool {
    !isEmpty && !other.isEmpty && offset < other.end && other.offset < end
  }

  /// The part that lies inside `bounds`; empty, and at the nearer edge, where none does.
  package func clamped(to bounds: GuestRange) -> GuestRange {
    let start = min(max(offset, bounds.offset), bounds.end)
    let stop = max(min(end, bounds.end), start)
    return GuestRange(from: start, to: stop)
  }

  /// The part that lies on a disk of `size` bytes.
  package func clamped(toSize size: UInt64) -> GuestRange {
    clamped(to: GuestRange(offset: .zero, length: size))
  }

  /// The smallest range of whole units that covers this one.
  package func widened(to unit: UInt64) -> GuestRange {
    isEmpty ? self : GuestRange(from: offset.roundedDown(to: unit), to: end.roundedUp(to: unit))
  }

  /// The largest range of whole units inside this one; empty if there is none.
  package func narrowed(to unit: UInt64) -> GuestRange {
    let start = offset.roundedUp(to: unit)
    let stop = end.roundedDown(to: unit)
    return start < stop ? GuestRange(from: start, to: stop) : GuestRange(offset: offset, length: 0)
  }

  /// Start and end in hexadecimal, the end not included.
  package var description: String { "\(offset)..<\(end)" }
}
