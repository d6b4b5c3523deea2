import HostSystem
import TestSupport

/// An image file in few bytes: mostly zeroes, which are counted.
///
/// Runs of two bytes, little-endian, with what follows them. The two highest bits say what the run is, the
/// others how long:
///
///     0  that many bytes, which follow       2  that many times the byte that follows
///     1  that many zeroes                    3  that many times 512 zeroes
enum PackedImage {
  /// No image of ours is longer.
  private static let longest: UInt64 = 16 << 20

  /// The bytes; any input means some.
  static func unpack(_ packed: [UInt8]) -> SparseBytes {
    var input = FuzzInput(packed)
    var content = SparseBytes()
    var end: UInt64 = 0
    while !input.isEmpty, end < longest {
      let run = input.number16()
      let count = Int(run & 0x3fff)
      switch run >> 14 {
      case 0:
        let bytes = input.bytes(count)
        content.put(bytes, at: end)
        end += UInt64(bytes.count)
      case 1: end += UInt64(count)
      case 2:
        content.put([UInt8](repeating: input.byte(), count: count), at: end)
        end += UInt64(count)
      default: end += UInt64(count) * 512
      }
    }
    content.resize(to: max(content.count, end))
    return content
  }
}
