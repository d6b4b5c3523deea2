/// Sizes as the human monitor takes them: MiB, or with one of B K M G T P E, in decimal with a fraction
/// or in hexadecimal without one. A plus may stand before it.
enum MonitorSize {
  /// The size that a text begins with, in bytes, and how long it is; nil if there is none, or one that
  /// does not fit.
  static func prefix(of text: Substring.UTF8View) -> (bytes: Int64, length: Int)? {
    let bytes = Array(text)
    let start = bytes.first == UInt8(ascii: "+") ? 1 : 0
    if bytes.count > start + 2, bytes[start] == UInt8(ascii: "0"),
      bytes[start + 1] | 0x20 == UInt8(ascii: "x"), digit(bytes[start + 2], radix: 16) != nil
    {
      return hexadecimal(bytes, from: start + 2)
    }
    guard let (whole, end) = number(bytes, from: start, radix: 10), end > start else { return nil }
    var length = end
    var fraction: [UInt64] = []
    if length < bytes.count, bytes[length] == UInt8(ascii: ".") {
      length += 1
      while length < bytes.count, let digit = digit(bytes[length], radix: 10) {
        fraction.append(digit)
        length += 1
      }
      if !fraction.isEmpty, hasExponent(bytes, at: length) { return nil }
    }
    let shift = takeShift(bytes, &length)
    // A fraction of a byte is no size.
    if shift == 0, fraction.contains(where: { $0 > 0 }) { return nil }
    // From the last digit, so that each division loses less than the one before it decides.
    let part = fraction.reversed().reduce(0.0) { (Double($1) + $0) / 10 }
    return scaled(whole, shift, part).map { ($0, length) }
  }

  /// B and E are digits here.
  private static func hexadecimal(
    _ bytes: [UInt8], from start: Int
  ) -> (bytes: Int64, length: Int)? {
    guard let (whole, end) = number(bytes, from: start, radix: 16) else { return nil }
    if end < bytes.count, bytes[end] == UInt8(ascii: ".") { return nil }
    var length = end
    let shift = takeShift(bytes, &length)
    return scaled(whole, shift, 0).map { ($0, length) }
  }

  /// What the suffix says that may stand there.
  private static func takeShift(_ bytes: [UInt8], _ place: inout Int) -> UInt64 {
    guard place < bytes.count, let shift = shift(of: bytes[place]) else { return 20 }
    place += 1
    return shift
  }

  /// An `e` that a power of ten follows, and not one that stands for a unit.
  private static func hasExponent(_ bytes: [UInt8], at place: Int) -> Bool {
    guard place < bytes.count, bytes[place] | 0x20 == UInt8(ascii: "e") else { return false }
    var next = place + 1
    let signs = [UInt8(ascii: "+"), UInt8(ascii: "-")]
    if next < bytes.count, signs.contains(bytes[next]) { next += 1 }
    return next < bytes.count && digit(bytes[next], radix: 10) != nil
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
