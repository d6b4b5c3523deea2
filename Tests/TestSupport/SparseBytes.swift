internal import HostSystem

/// A long row of bytes of which only the touched pages are kept; the rest are zero.
///
/// A copy shares its pages with the original until one of them is written to, so it costs next to nothing.
package struct SparseBytes: Sendable, Equatable {
  /// The page that a touched byte brings along.
  package static let pageSize: UInt64 = 4096
  private static let zeroes = [UInt8](repeating: 0, count: Int(pageSize))

  private var pages: [UInt64: [UInt8]] = [:]
  /// How many bytes there are.
  package private(set) var count: UInt64 = 0

  /// No bytes.
  package init() {}

  /// All of `bytes`.
  package init(_ bytes: [UInt8]) { put(bytes, at: 0) }

  /// The bytes of `range`; what lies behind the end is zero.
  package func bytes(_ offset: UInt64, _ length: Int) -> [UInt8] {
    var result = [UInt8](repeating: 0, count: length)
    var span = result.mutableRawSpan
    read(into: &span, at: offset)
    return result
  }

  /// All bytes.
  package var all: [UInt8] { bytes(0, Int(count)) }

  /// Fills `buffer`; what lies behind the end is zero.
  package func read(into buffer: inout MutableRawSpan, at offset: UInt64) {
    buffer.withUnsafeMutableBytes { buffer in
      forEachPiece(offset, buffer.count) { page, inPage, at, count in
        let part = UnsafeMutableRawBufferPointer(rebasing: buffer[at..<at + count])
        if let bytes = pages[page] {
          bytes.withUnsafeBytes {
            part.copyMemory(from: UnsafeRawBufferPointer(rebasing: $0[inPage..<inPage + count]))
          }
        } else {
          part.initializeMemory(as: UInt8.self, repeating: 0)
        }
      }
    }
  }

  /// Puts `bytes` at `offset`; the row grows as needed.
  package mutating func put(_ bytes: [UInt8], at offset: UInt64) {
    put(bytes.rawSpan, at: offset)
  }

  /// Puts `bytes` at `offset`; the row grows as needed.
  package mutating func put(_ bytes: RawSpan, at offset: UInt64) {
    if bytes.byteCount == 0 { return }
    bytes.withUnsafeBytes { bytes in
      var at = 0
      while at < bytes.count {
        let place = offset + UInt64(at)
        let inPage = Int(place % Self.pageSize)
        let count = min(Int(Self.pageSize) - inPage, bytes.count - at)
        pages[place / Self.pageSize, default: Self.zeroes].withUnsafeMutableBytes { page in
          UnsafeMutableRawBufferPointer(rebasing: page[inPage..<inPage + count])
            .copyMemory(from: UnsafeRawBufferPointer(rebasing: bytes[at..<at + count]))
        }
        at += count
      }
    }
    count = max(count, offset + UInt64(bytes.byteCount))
  }

  /// The bytes of a page, nil if it was not touched.
  package func page(_ number: UInt64) -> [UInt8]? { pages[number] }

  /// Puts a whole page in place, without a change of the length.
  package mutating func setPage(_ number: UInt64, to bytes: [UInt8]?) { pages[number] = bytes }

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
    let next = pages.keys.lazy.filter { $0 > offset / Self.pageSize }.min()
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
