internal import Glibc
package import HostSystem
internal import Synchronization

// MARK: - Bytes in and out

extension HostFile {
  /// The most that is moved to aligned memory at once.
  static let bounceSize = 1 << 20

  /// Reads through the page cache unless that is avoided; short only at the end of the file, and
  /// `.truncated` where the file reached further before.
  package func read(
    into buffer: inout MutableRawSpan, at offset: HostOffset
  ) throws(StorageError) -> Int {
    try checkRange(at: offset, length: UInt64(buffer.byteCount))
    let reach = reach.load(ordering: .acquiring)
    let count: Int
    if avoidsPageCache, let found = try readDirect(into: &buffer, at: offset) {
      count = found
    } else {
      do throws(SystemError) {
        count = try SystemCall.read(descriptor.raw, into: &buffer, at: offset.rawValue)
      } catch {
        throw .system(path: path, error)
      }
    }
    if count < buffer.byteCount, offset.rawValue + UInt64(count) < reach {
      throw .truncated(path: path, offset: offset, wanted: buffer.byteCount, found: count)
    }
    return count
  }

  /// Writes all of `bytes`; whole pages of data go past the page cache where that is possible, and
  /// everything where the page cache is avoided.
  package func write(
    _ bytes: RawSpan, at offset: HostOffset, intent: WriteIntent
  ) throws(StorageError) {
    try checkWrite(at: offset, length: UInt64(bytes.byteCount))
    if let unit = claimedUnit {
      try writeUnits(bytes, at: offset, unit: unit)
    } else if intent == .data, usesDirectIO {
      try writeSplit(bytes, at: offset)
    } else {
      try writeBuffered(bytes, at: offset)
    }
    wrote(offset.rawValue + UInt64(bytes.byteCount))
  }

  private func writeSplit(_ bytes: RawSpan, at offset: HostOffset) throws(StorageError) {
    guard let unit = directUnit else { return try writeBuffered(bytes, at: offset) }
    let split = WriteSplit(offset: offset.rawValue, count: bytes.byteCount, unit: unit)
    if split.head > 0 {
      try writeBuffered(bytes.extracting(0..<split.head), at: offset)
    }
    let tail = split.head + split.middle
    if split.middle > 0 {
      try writeDirect(bytes.extracting(split.head..<tail), at: offset + UInt64(split.head))
    }
    if split.tail > 0 {
      try writeBuffered(bytes.extracting(tail..<bytes.byteCount), at: offset + UInt64(tail))
    }
  }

  var directUnit: UInt64? {
    switch direct {
    case .some(let door): door.unit
    case .none: nil
    }
  }

  func writeBuffered(_ bytes: RawSpan, at offset: HostOffset) throws(StorageError) {
    do throws(SystemError) {
      try SystemCall.write(descriptor.raw, bytes, at: offset.rawValue)
    } catch {
      throw .system(path: path, error)
    }
  }

  /// Writes whole units, from where they are if memory is aligned, else by way of the thread's buffer.
  func writeDirect(_ bytes: RawSpan, at offset: HostOffset) throws(StorageError) {
    // In bounds and alive: only the address is looked at, inside the span's own closure.
    let address = unsafe bytes.withUnsafeBytes { memory in
      UInt(bitPattern: memory.baseAddress)
    }
    if address % directMemoryAlignment == 0 {
      return try writeAligned(bytes, at: offset)
    }
    var done = 0
    while done < bytes.byteCount {
      let count = min(Self.bounceSize, bytes.byteCount - done)
      let piece = bytes.extracting(done..<done + count)
      let place = offset + UInt64(done)
      try ThreadScratch.withBuffer(.bounce, byteCount: count) { buffer throws(StorageError) in
        buffer.copy(piece)
        try writeAligned(buffer.bytes, at: place)
      }
      done += count
    }
  }

  var directMemoryAlignment: UInt {
    switch direct {
    case .some(let door): UInt(door.memoryAlignment)
    case .none: 1
    }
  }

  func writeAligned(_ bytes: RawSpan, at offset: HostOffset) throws(StorageError) {
    do throws(SystemError) {
      switch direct {
      case .some(let door):
        try SystemCall.write(door.descriptor.raw, bytes, at: offset.rawValue)
      case .none:
        try SystemCall.write(descriptor.raw, bytes, at: offset.rawValue)
      }
    } catch {
      if error.number != EINVAL { throw .system(path: path, error) }
      // The file system wants more than it said, or only a part was taken and the rest is odd: the
      // page cache takes everything, and repeating what was written changes nothing.
      isDirectRefused.store(true, ordering: .relaxed)
      try writeBuffered(bytes, at: offset)
    }
  }

  /// Makes all writes that have returned durable; a failure stays.
  package func flush() throws(StorageError) {
    if !wasOpenedForWriting { return }
    if let failure = flushes.failure { throw .flushFailed(path: path, failure) }
    do throws(SystemError) {
      // Both doors lead to one inode: its dirty pages and the device's cache are flushed for both.
      try flushes.run { () throws(SystemError) in
        try SystemCall.synchronizeData(descriptor.raw)
      }
    } catch {
      throw .flushFailed(path: path, error)
    }
  }
}
