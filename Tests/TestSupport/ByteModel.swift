package import HostSystem

/// What a disk must read as: plain bytes, without clusters, layers or caches.
package struct ByteModel: Sendable, Equatable {
  /// All bytes.
  package private(set) var bytes: [UInt8]

  /// A disk of `size` zeroes.
  package init(size: Int) { bytes = [UInt8](repeating: 0, count: size) }
  /// A disk that holds `bytes`.
  package init(bytes: [UInt8]) { self.bytes = bytes }

  /// A write.
  package mutating func write(_ new: [UInt8], at offset: Int) {
    bytes.replaceSubrange(offset..<offset + new.count, with: new)
  }

  /// Zeroes.
  package mutating func zero(_ range: GuestRange) {
    let start = Int(range.offset.rawValue)
    let zeroes = [UInt8](repeating: 0, count: Int(range.length))
    bytes.replaceSubrange(start..<start + zeroes.count, with: zeroes)
  }

  /// A longer disk.
  package mutating func grow(to size: Int) {
    bytes.append(contentsOf: [UInt8](repeating: 0, count: size - bytes.count))
  }

  /// The bytes of a range.
  package func read(at offset: Int, count: Int) -> [UInt8] { Array(bytes[offset..<offset + count]) }

  /// The first place from `offset` on where `found` differs, nil if it does not.
  package func firstDifference(from found: [UInt8], at offset: Int) -> Int? {
    let wanted = bytes[offset..<offset + found.count]
    if wanted.elementsEqual(found) { return nil }
    for (index, byte) in found.enumerated() where bytes[offset + index] != byte {
      return offset + index
    }
    return nil
  }
}
