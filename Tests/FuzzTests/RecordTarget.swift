@testable import Jobs

/// The record of a job. With an odd first byte the rest is the body, and gets a right first line: no
/// fuzzer guesses a checksum; the next bit chooses the version. With an even one the rest is the whole file.
enum RecordTarget {
  static func run(_ bytes: [UInt8]) throws {
    var input = FuzzInput(bytes)
    let kind = input.byte()
    let isBody = kind & 1 == 1
    let version = kind & 2 == 0 ? 1 : 2
    let rest = Array(input.rest)
    let file = isBody ? Array("chainfs-job \(version) \(checksum(rest))\n".utf8) + rest : rest
    guard let record = try attempt({ try JobRecord(bytes: file, path: "/images/.a.chainfs-job") })
    else { return }
    guard let encoded = try attempt({ try record.encoded() }) else { return }
    let again = try JobRecord(bytes: encoded, path: "/images/.a.chainfs-job")
    try claim(again == record, "a record reads otherwise: \(record) \(again)")
  }

  private static func checksum(_ bytes: [UInt8]) -> String {
    var hash: UInt64 = 0xcbf2_9ce4_8422_2325
    for byte in bytes { hash = (hash ^ UInt64(byte)) &* 0x100_0000_01b3 }
    let digits = String(hash, radix: 16)
    return String(repeating: "0", count: 16 - digits.count) + digits
  }
}
