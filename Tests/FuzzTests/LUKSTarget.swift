import HostSystem
import TestSupport

@testable import Encryption

/// LUKS headers. The first two bytes of the input are the length of their area in units of 4 KiB.
enum LUKSTarget {
  static func run(_ bytes: [UInt8]) throws {
    var input = FuzzInput(bytes)
    let area = UInt64(input.number16()) << 12
    var header = Array(input.rest.prefix(1024))
    header += [UInt8](repeating: 0, count: max(0, LUKSHeader.byteCount - header.count))
    guard
      let luks = try attempt({ try LUKSHeader(parsing: header, areaByteCount: area) })
    else { return }
    try claim(luks.slots.count == 8, "\(luks.slots.count) key slots")
    for slot in luks.slots where slot.isActive {
      try claim(
        slot.materialOffset + UInt64(luks.materialByteCount) <= max(area, 4096),
        "key material at \(slot.materialOffset) leaves an area of \(area) bytes")
      // What a slot costs to try is its maker's to say; here it has to be quick.
      guard slot.iterations <= 4, luks.digestIterations <= 4 else { continue }
      var material = [UInt8](repeating: 0x5a, count: luks.materialByteCount)
      var secret = Array("secret".utf8)
      _ = try attempt {
        try luks.open(slot, material: &material, with: SecretBytes(taking: &secret))
      }
      return
    }
  }
}
