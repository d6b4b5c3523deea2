import Foundation
import HostSystem

/// What a disk reads as, and what each of its sectors may read as after a crash.
///
/// A sector may hold what it held at the last flush, or anything that was written to it since, as a whole.
struct ByteHistory: Sendable {
  static let sector = 512

  /// All bytes as they are.
  private(set) var now: [UInt8]
  /// Other contents that a sector may have, by its number.
  private var older: [Int: [[UInt8]]] = [:]

  /// All of `bytes` are durable.
  init(_ bytes: [UInt8]) { now = bytes }

  /// Begins a write.
  mutating func write(_ bytes: [UInt8], at offset: Int) {
    if bytes.isEmpty { return }
    for sector in offset / Self.sector...(offset + bytes.count - 1) / Self.sector {
      older[sector, default: []].append(
        Array(now[sector * Self.sector..<(sector + 1) * Self.sector]))
    }
    now.replaceSubrange(offset..<offset + bytes.count, with: bytes)
  }

  /// Begins to make a range zero.
  mutating func zero(_ offset: Int, _ length: Int) {
    write([UInt8](repeating: 0, count: length), at: offset)
  }

  /// A flush that began after the last write has ended.
  mutating func flushed() { older = [:] }

  /// The disk did not grow after all.
  mutating func shrink(to size: Int) { now.removeLast(now.count - size) }

  /// A longer disk.
  mutating func grow(to size: Int) {
    now.append(contentsOf: repeatElement(0, count: size - now.count))
  }

  /// The first sector of `found` that holds what it never held, among the first `limit` bytes.
  func firstFault(_ found: [UInt8], limit: Int) -> Int? {
    now.withUnsafeBytes { now in
      found.withUnsafeBytes { found in
        let limit = min(limit, now.count, found.count)
        guard let ours = now.baseAddress, let theirs = found.baseAddress else { return nil }
        if memcmp(ours, theirs, limit) == 0 { return nil }
        for sector in 0..<limit / Self.sector {
          let place = sector * Self.sector
          if memcmp(ours + place, theirs + place, Self.sector) == 0 { continue }
          let isOld = older[sector, default: []].contains { version in
            version.withUnsafeBytes { bytes in
              bytes.baseAddress.map { memcmp($0, theirs + place, Self.sector) == 0 } ?? false
            }
          }
          if !isOld { return sector }
        }
        return nil
      }
    }
  }
}
