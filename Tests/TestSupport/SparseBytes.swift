/// A long row of bytes of which only the touched pages are kept; the rest are zero.
package struct SparseBytes: Sendable, Equatable {
  /// The page that a touched byte brings along.
  package static let pageSize: UInt64 = 4096

  private var pages: [UInt64: [UInt8]] = [:]
  /// How many bytes there are.
  package private(set) var count: UInt64 = 0

  /// No bytes.
  package init() {}

  /// The bytes of `range`; what lies behind the end is zero.
  package func bytes(_ offset: UInt64, _ length: Int) -> [UInt8] {
    var result = [UInt8](repeating: 0, count: length)
    forEachPiece(offset, length) { page, inPage, at, count in
      if let bytes = pages[page] {
        result.replaceSubrange(at..<at + count, with: bytes[inPage..<inPage + count])
      }
    }
    return result
  }

  /// Puts `bytes` at `offset`; the row grows as needed.
  package mutating func put(_ bytes: [UInt8], at offset: UInt64) {
    if bytes.isEmpty { return }
    var touched = pages
    pages = [:]
    forEachPiece(offset, bytes.count) { page, inPage, at, count in
      touched[page, default: [UInt8](repeating: 0, count: Int(Self.pageSize))]
        .replaceSubrange(inPage..<inPage + count, with: bytes[at..<at + count])
    }
    pages = touched
    count = max(count, offset + UInt64(bytes.count))
  }

  /// Drops the whole pages of a range and zeroes its ragged ends; the length stays.
  package mutating func punch(_ offset: UInt64, _ length: UInt64) {
    let end = min(offset + length, (count + Self.pageSize - 1) / Self.pageSize * Self.pageSize)
    for page in pages.keys {
      let start = page * Self.pageSize
      let from = max(start, offset)
      let to = min(start + Self.pageSize, end)
      if from >= to { continue }
      if to - from == Self.pageSize {
        pages[page] = nil
      } else {
        let zeroes = [UInt8](repeating: 0, count: Int(to - from))
        pages[page]?.replaceSubrange(Int(from - start)..<Int(to - start), with: zeroes)
      }
    }
  }

  /// Makes the row exactly `size` bytes long.
  package mutating func resize(to size: UInt64) {
    if size < count {
      punch(size, (count - size) + Self.pageSize)
    }
    count = size
  }

  /// The bytes that the touched pages take.
  package var allocated: UInt64 { UInt64(pages.count) * Self.pageSize }

  /// The first byte from `offset` on that is in a touched page.
  package func nextData(_ offset: UInt64) -> UInt64? {
    if offset >= count { return nil }
    if pages[offset / Self.pageSize] != nil { return offset }
    let next = pages.keys.filter { $0 > offset / Self.pageSize }.min()
    return next.map { $0 * Self.pageSize }.flatMap { $0 < count ? $0 : nil }
  }

  /// The first byte from `offset` on that is in no touched page; the end counts as one.
  package func nextHole(_ offset: UInt64) -> UInt64? {
    if offset >= count { return nil }
    var page = offset / Self.pageSize
    if pages[page] == nil { return offset }
    while pages[page] != nil { page += 1 }
    return min(page * Self.pageSize, count)
  }

  private func forEachPiece(
    _ offset: UInt64, _ length: Int,
    _ body: (_ page: UInt64, _ inPage: Int, _ at: Int, _ count: Int) -> Void
  ) {
    var at = 0
    while at < length {
      let place = offset + UInt64(at)
      let inPage = Int(place % Self.pageSize)
      let count = min(Int(Self.pageSize) - inPage, length - at)
      body(place / Self.pageSize, inPage, at, count)
      at += count
    }
  }
}
