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

  /// A size as QEMU writes it for people: three digits that say something, with the binary unit.
  static func threeDigits(_ bytes: UInt64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"]
    var unit = 0
    // Below one thousand, not below 1024.
    while unit + 1 < units.count, bytes >= UInt64(1000) << UInt64(10 * unit) { unit += 1 }
    let shift = UInt128(10 * unit)
    let value = UInt128(bytes)
    let decimals =
      if value >= 100 << shift { 0 } else if value >= 10 << shift { 1 } else if value >= 1 << shift
      { 2 } else { 3 }
    let scale = ([1, 10, 100, 1000] as [UInt128])[decimals]
    let unitSize = UInt128(1) << shift
    let (below, rest) = (value * scale).quotientAndRemainder(dividingBy: unitSize)
    // To the nearest, or the even one of two, as printf does.
    let isUp = rest * 2 > unitSize || (rest * 2 == unitSize && below % 2 == 1)
    let number = isUp ? below + 1 : below
    // Three digits cannot say one thousand.
    if number == 1000, decimals == 0 { return "1e+03 \(units[unit])" }
    var (whole, part) = number.quotientAndRemainder(dividingBy: scale)
    var digits = String(whole)
    var place = scale / 10
    if part > 0 { digits += "." }
    while part > 0 {
      (whole, part) = part.quotientAndRemainder(dividingBy: place)
      digits += String(whole)
      place /= 10
    }
    return "\(digits) \(units[unit])"
  }
}
