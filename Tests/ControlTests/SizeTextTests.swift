import Testing

@testable import Control

@Suite("SizeText")
struct SizeTextTests {
  @Test(
    "sizes are decimal bytes or carry a suffix in either case",
    arguments: [
      ("0", 0), ("1", 1), ("007", 7), ("200M", 209_715_200), ("200m", 209_715_200),
      ("1k", 1024), ("1K", 1024), ("3g", 3 << 30), ("3G", 3 << 30), ("2t", 2 << 40),
      ("2T", 2 << 40), ("0T", 0), ("9223372036854775807", UInt64(Int64.max)),
      ("9007199254740991K", 9_007_199_254_740_991 << 10), ("8388607T", 8_388_607 << 40),
    ] as [(String, UInt64)])
  func good(text: String, bytes: UInt64) {
    #expect(SizeText.bytes(text) == bytes)
  }

  @Test(
    "what is not a size or does not fit in 63 bits is refused",
    arguments: [
      "", "M", "-1", "+1", "1.5M", "0x10", "1e3", "1 M", " 1", "1 ", "1MB", "1MiB", "1P", "1E",
      "1KK", "9223372036854775808", "9007199254740992K", "8388608T", "99999999999999999999999",
      "18446744073709551616", "1_000", "\u{661}",
    ])
  func bad(text: String) {
    #expect(SizeText.bytes(text) == nil)
  }

  @Test(
    "sizes for people have a unit",
    arguments: [
      (0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (1536, "1.5 KiB"),
      (1 << 20, "1.0 MiB"), (UInt64.max, "15.9 EiB"),
    ] as [(UInt64, String)])
  func people(bytes: UInt64, text: String) {
    #expect(SizeText.forPeople(bytes) == text)
  }

  @Test(
    "three digits of a size are those that QEMU writes",
    arguments: [
      (0, "0 B"), (1, "1 B"), (999, "999 B"), (1000, "0.977 KiB"), (1024, "1 KiB"),
      (1536, "1.5 KiB"), (12345, "12.1 KiB"), (197_120, "192 KiB"), (1_023_000, "999 KiB"),
      (1_023_999, "1e+03 KiB"), (1_024_000, "0.977 MiB"), (1_376_256, "1.31 MiB"),
      (1_572_864_000, "1.46 GiB"), (8_716_288, "8.31 MiB"), (1 << 62, "4 EiB"),
      (10_480_517, "9.99 MiB"), (10_485_555, "10 MiB"),
    ] as [(UInt64, String)])
  func threeDigits(bytes: UInt64, text: String) {
    #expect(SizeText.threeDigits(bytes) == text)
  }
}
