import Foundation
import TestSupport
import Testing

/// The bytes of an image with the places of its tables.
struct ImageBytes {
  var bytes: Data

  func number(_ offset: Int, _ count: Int = 8) -> UInt64 {
    guard offset >= 0, offset + count <= bytes.count else { return 0 }
    return bytes[offset..<offset + count].reduce(0) { $0 << 8 | UInt64($1) }
  }

  mutating func set(_ offset: Int, _ value: UInt64, _ count: Int = 8) {
    guard offset >= 0, offset + count <= bytes.count else { return }
    for place in 0..<count {
      bytes[offset + place] = UInt8(truncatingIfNeeded: value >> UInt64(8 * (count - 1 - place)))
    }
  }

  mutating func change(_ offset: Int, _ body: (UInt64) -> UInt64) {
    set(offset, body(number(offset)))
  }

  static let offsetMask: UInt64 = 0x00ff_ffff_ffff_fe00

  var clusterSize: Int { 1 << Int(number(20, 4)) }
  var version: UInt64 { number(4, 4) }
  var refcountBits: Int { version == 2 ? 16 : 1 << Int(number(96, 4)) }
  var entryBytes: Int { version > 2 && number(72) & 16 != 0 ? 16 : 8 }
  var l1Table: Int { Int(number(40)) }
  var l1Size: Int { Int(number(36, 4)) }
  var refcountTable: Int { Int(number(48)) }
  var snapshots: Int { Int(number(64)) }
  /// The first refcount block.
  var block: Int { Int(number(refcountTable)) }
  /// The first L2 table of the active disk.
  var l2Table: Int {
    (0..<l1Size).lazy.map { Int(number(l1Table + $0 * 8) & Self.offsetMask) }.first { $0 > 0 } ?? 0
  }

  /// The places of the first L2 table's entries that satisfy `isWanted`.
  func entries(where isWanted: (UInt64) -> Bool) -> [Int] {
    stride(from: l2Table, to: l2Table + clusterSize, by: entryBytes).filter {
      isWanted(number($0))
    }
  }

  /// Entries of plain data with a home of their own.
  var dataEntries: [Int] {
    entries { $0 >> 62 == 2 && $0 & 1 == 0 && $0 & Self.offsetMask != 0 }
  }
  var compressedEntries: [Int] { entries { $0 >> 62 & 1 == 1 } }

  /// The directory of bitmaps, and the table of the first one.
  var bitmapDirectory: Int {
    var offset = Int(number(100, 4))
    while offset < clusterSize, number(offset, 4) != 0 {
      if number(offset, 4) == 0x2385_2875 { return Int(number(offset + 24)) }
      offset += 8 + (Int(number(offset + 4, 4)) + 7) & ~7
    }
    return 0
  }

  /// Changes the refcount of a cluster, by the bits of the first block.
  mutating func setRefcount(_ cluster: Int, _ value: UInt64) {
    let bits = refcountBits
    if bits >= 8 {
      set(block + cluster * bits / 8, value, bits / 8)
    } else {
      let place = block + cluster * bits / 8
      let shift = cluster * bits % 8
      let mask = UInt8((1 << bits) - 1) << UInt8(shift)
      bytes[place] = bytes[place] & ~mask | UInt8(value) << UInt8(shift) & mask
    }
  }

  /// Flips one bit of a number in one of the regions, rather of one that is not zero.
  mutating func flip(_ region: Region, _ random: inout SeededGenerator) -> String {
    let range: Range<Int> =
      switch region {
      case .l1: l1Table..<l1Table + l1Size * 8
      case .l2: l2Table..<l2Table + clusterSize
      case .refcountTable: refcountTable..<refcountTable + 64
      case .block: block..<block + min(clusterSize, 512)
      case .snapshots: snapshots..<snapshots + 40
      case .bitmaps: bitmapDirectory..<bitmapDirectory + 24
      }
    let words = stride(from: range.lowerBound, to: range.upperBound, by: 8).map { $0 }
    let used = words.filter { number($0) != 0 }
    let rather = random.oneIn(4) || used.isEmpty ? words : used
    let place = rather[Int.random(in: 0..<rather.count, using: &random)]
    let bit = UInt64.random(in: 0..<64, using: &random)
    change(place) { $0 ^ 1 << bit }
    return "\(region) bit \(bit) at \(place)"
  }

  enum Region { case l1, l2, refcountTable, block, snapshots, bitmaps }
}

/// What both tools say of an image, in numbers; nil of QEMU's if its check failed or did not begin.
struct CheckCounts: Equatable, CustomStringConvertible {
  var numbers: [String: UInt64]

  static let names = [
    "image-end-offset", "total-clusters", "check-errors", "corruptions", "leaks",
    "allocated-clusters", "fragmented-clusters", "compressed-clusters",
  ]

  init?(json: String) {
    guard
      let object = try? JSONSerialization.jsonObject(with: Data(json.utf8)) as? [String: Any]
    else { return nil }
    numbers = [:]
    // Neither prints what is zero.
    for name in Self.names {
      numbers[name] = (object[name] as? NSNumber)?.uint64Value ?? 0
    }
  }

  var isSound: Bool {
    numbers["check-errors"] == 0 && numbers["corruptions"] == 0 && numbers["leaks"] == 0
  }

  var description: String {
    Self.names.map { "\($0)=\(numbers[$0] ?? 0)" }.joined(separator: " ")
  }
}
