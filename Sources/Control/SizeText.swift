/// Sizes as control files take them: whole decimal bytes, or with K, M, G or T for powers of 1024.
package enum SizeText {
  /// The bytes that a text stands for, nil if it is not a size or does not fit in 63 bits.
  ///
  /// Either case of a suffix will do. There is no sign, no blank, no fraction, no hexadecimal form.
  package static func bytes(_ text: some StringProtocol) -> UInt64? {
    var digits = Array(text.utf8)
    var shift = 0
    switch digits.last {
    case UInt8(ascii: "K"), UInt8(ascii: "k"): shift = 10
    case UInt8(ascii: "M"), UInt8(ascii: "m"): shift = 20
    case UInt8(ascii: "G"), UInt8(ascii: "g"): shift = 30
    case UInt8(ascii: "T"), UInt8(ascii: "t"): shift = 40
    default: break
    }
    if shift > 0 { digits.removeLast() }
    guard !digits.isEmpty else { return nil }
    var value: UInt64 = 0
    for digit in digits {
      guard (UInt8(ascii: "0")...UInt8(ascii: "9")).contains(digit) else { return nil }
      let (tens, isOver) = value.multipliedReportingOverflow(by: 10)
      let (sum, isOverToo) = tens.addingReportingOverflow(UInt64(digit - UInt8(ascii: "0")))
      if isOver || isOverToo { return nil }
      value = sum
    }
    return value > UInt64(Int64.max) >> UInt64(shift) ? nil : value << UInt64(shift)
  }

  /// A size for people: three digits or so, with the binary unit.
  package static func forPeople(_ bytes: UInt64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"]
    var tenths = (bytes, UInt64(0))
    var unit = 0
    while tenths.0 >= 1024 {
      tenths = (tenths.0 / 1024, tenths.0 % 1024 * 10 / 1024)
      unit += 1
    }
    return unit == 0 ? "\(bytes) B" : "\(tenths.0).\(tenths.1) \(units[unit])"
  }
}
