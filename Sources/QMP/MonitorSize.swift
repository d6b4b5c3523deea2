/// Sizes as the human monitor takes them: MiB, or with one of B K M G T P E, in decimal with a fraction
/// or in hexadecimal without one.
enum MonitorSize {
  /// The size that a text begins with, in bytes, and how long it is; nil if there is none, or one that
  /// does not fit.
  static func prefix(of text: Substring.UTF8View) -> (bytes: Int64, length: Int)? {
    let bytes = Array(text.prefix(64))
    if bytes.count > 2, bytes[0] == UInt8(ascii: "0"), bytes[1] | 0x20 == UInt8(ascii: "x"),
      digit(bytes[2], radix: 16) != nil
    {
      return hexadecimal(bytes)
    }
    guard let (whole, end) = number(bytes, from: 0, radix: 10), end > 0 else { return nil }
    var length = end
    var fraction: [UInt64] = []
    if length < bytes.count, bytes[length] == UInt8(ascii: ".") {
      length += 1
      while length < bytes.count, let digit = digit(bytes[length], radix: 10) {
        fraction.append(digit)
        length += 1
      }
    }
    var shift: UInt64 = 20
    if length < bytes.count, let suffix = Self.shift(of: bytes[length]) {
      shift = suffix
      length += 1
    }
    // A fraction of a byte is no size.
    if shift == 0, fraction.contains(where: { $0 > 0 }) { return nil }
    // From the last digit, so that each division loses less than the one before it decides.
    let part = fraction.reversed().reduce(0.0) { (Double($1) + $0) / 10 }
    return scaled(whole, shift, part).map { ($0, length) }
  }

  private static func hexadecimal(_ bytes: [UInt8]) -> (bytes: Int64, length: Int)? {
    guard let (whole, end) = number(bytes, from: 2, radix: 16) else { return nil }
    return scaled(whole, 20, 0).map { ($0, end) }
  }

  private static func scaled(_ whole: UInt64, _ shift: UInt64, _ fraction: Double) -> Int64? {
    let unit = UInt64(1) << shift
    let (bytes, isOver) = whole.multipliedReportingOverflow(by: unit)
    let (sum, isOverToo) = bytes.addingReportingOverflow(UInt64(fraction * Double(unit)))
    return isOver || isOverToo ? nil : Int64(exactly: sum)
  }

  /// The number at a place and the place behind it; nil if it is too large.
  private static func number(
    _ bytes: [UInt8], from start: Int, radix: UInt64
  ) -> (UInt64, end: Int)? {
    var value: UInt64 = 0
    var place = start
    while place < bytes.count, let digit = digit(bytes[place], radix: radix) {
      let (product, isOver) = value.multipliedReportingOverflow(by: radix)
      let (sum, isOverToo) = product.addingReportingOverflow(digit)
      if isOver || isOverToo { return nil }
      value = sum
      place += 1
    }
    return (value, place)
  }

  private static func digit(_ byte: UInt8, radix: UInt64) -> UInt64? {
    switch byte {
    case UInt8(ascii: "0")...UInt8(ascii: "9"): UInt64(byte - UInt8(ascii: "0"))
    case UInt8(ascii: "a")...UInt8(ascii: "f") where radix == 16:
      UInt64(byte - UInt8(ascii: "a")) + 10
    case UInt8(ascii: "A")...UInt8(ascii: "F") where radix == 16:
      UInt64(byte - UInt8(ascii: "A")) + 10
    default: nil
    }
  }

  private static func shift(of suffix: UInt8) -> UInt64? {
    switch suffix | 0x20 {
    case UInt8(ascii: "b"): 0
    case UInt8(ascii: "k"): 10
    case UInt8(ascii: "m"): 20
    case UInt8(ascii: "g"): 30
    case UInt8(ascii: "t"): 40
    case UInt8(ascii: "p"): 50
    case UInt8(ascii: "e"): 60
    default: nil
    }
  }
}
