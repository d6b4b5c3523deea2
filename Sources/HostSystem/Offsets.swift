/// A place on the disk that the guest sees.
package struct GuestOffset: RawRepresentable, Comparable, Hashable, Sendable,
  CustomStringConvertible
{
  /// Bytes from the start of the disk.
  package var rawValue: UInt64

  /// Names the byte `rawValue`.
  package init(rawValue: UInt64) { self.rawValue = rawValue }
  /// Names the byte `rawValue`.
  package init(_ rawValue: UInt64) { self.rawValue = rawValue }

  /// The first byte of the disk.
  package static let zero = GuestOffset(0)

  /// Orders by place.
  package static func < (left: Self, right: Self) -> Bool { left.rawValue < right.rawValue }
  /// The place `distance` bytes further on; overflow stops the program.
  package static func + (place: Self, distance: UInt64) -> Self { Self(place.rawValue + distance) }
  /// Moves on by `distance` bytes.
  package static func += (place: inout Self, distance: UInt64) { place.rawValue += distance }
  /// The bytes from `right` to `left`, which must not lie before it.
  package static func - (left: Self, right: Self) -> UInt64 { left.rawValue - right.rawValue }

  /// This offset rounded down to a multiple of `unit`, which is not zero.
  package func roundedDown(to unit: UInt64) -> Self { Self(rawValue - rawValue % unit) }
  /// This offset rounded up to a multiple of `unit`, which is not zero.
  package func roundedUp(to unit: UInt64) -> Self {
    let rest = rawValue % unit
    return rest == 0 ? self : Self(rawValue + (unit - rest))
  }

  /// The number in hexadecimal.
  package var description: String { "0x" + String(rawValue, radix: 16) }
}

/// A place in an image file.
package struct HostOffset: RawRepresentable, Comparable, Hashable, Sendable,
  CustomStringConvertible
{
  /// Bytes from the start of the file.
  package var rawValue: UInt64

  /// Names the byte `rawValue`.
  package init(rawValue: UInt64) { self.rawValue = rawValue }
  /// Names the byte `rawValue`.
  package init(_ rawValue: UInt64) { self.rawValue = rawValue }

  /// The first byte of the file.
  package static let zero = HostOffset(0)

  /// Orders by place.
  package static func < (left: Self, right: Self) -> Bool { left.rawValue < right.rawValue }
  /// The place `distance` bytes further on; overflow stops the program.
  package static func + (place: Self, distance: UInt64) -> Self { Self(place.rawValue + distance) }
  /// Moves on by `distance` bytes.
  package static func += (place: inout Self, distance: UInt64) { place.rawValue += distance }
  /// The bytes from `right` to `left`, which must not lie before it.
  package static func - (left: Self, right: Self) -> UInt64 { left.rawValue - right.rawValue }

  /// This offset rounded down to a multiple of `unit`, which is not zero.
  package func roundedDown(to unit: UInt64) -> Self { Self(rawValue - rawValue % unit) }
  /// This offset rounded up to a multiple of `unit`, which is not zero.
  package func roundedUp(to unit: UInt64) -> Self {
    let rest = rawValue % unit
    return rest == 0 ? self : Self(rawValue + (unit - rest))
  }

  /// The number in hexadecimal.
  package var description: String { "0x" + String(rawValue, radix: 16) }
}
