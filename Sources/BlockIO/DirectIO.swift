internal import HostSystem

/// An image file's second door, past the page cache, and what it asks of those who pass.
///
/// Beside the page cache the unit in the file is a page at least: a page of the cache is then written
/// through one door only by any single write, and direct and buffered writes of neighbours cannot meet
/// inside one page. Where this door is the only one, the unit is what the disk asks for, a sector.
struct DirectIO: ~Copyable, Sendable {
  /// The open file.
  let descriptor: OwnedDescriptor
  /// The alignment of memory.
  let memoryAlignment: Int
  /// The alignment of offsets and lengths.
  let unit: UInt64

  /// Opens the door, nil where the file system has none.
  init?(sameAs buffered: Int32, forWriting: Bool, beside cache: HostFile.PageCache) {
    let page: UInt32 = 4096
    guard let descriptor = SystemCall.openDirect(sameAs: buffered, forWriting: forWriting) else {
      return nil
    }
    let wish = SystemCall.directAlignment(of: descriptor.raw) ?? (memory: page, offset: page)
    // 0 is a file that has no such door; the rest is more than a thread's buffer gives.
    guard wish.memory > 0, wish.memory <= ThreadScratch.alignment,
      wish.offset.nonzeroBitCount == 1, wish.offset <= HostFile.bounceSize
    else { return nil }
    self.descriptor = descriptor
    memoryAlignment = Int(wish.memory)
    unit = UInt64(cache == .avoided ? wish.offset : max(page, wish.offset))
  }
}

/// How the bytes of one data write are shared out between the two doors.
struct WriteSplit: Equatable {
  /// Bytes in front that fill no unit.
  var head: Int
  /// Whole units.
  var middle: Int
  /// Bytes behind that fill no unit.
  var tail: Int

  /// Shares out `count` bytes at `offset` by whole units of `unit` bytes.
  init(offset: UInt64, count: Int, unit: UInt64) {
    let lead = Int((unit - offset % unit) % unit)
    if lead >= count {
      (head, middle, tail) = (count, 0, 0)
    } else {
      head = lead
      middle = (count - lead) / Int(unit) * Int(unit)
      tail = count - head - middle
    }
  }
}
