internal import Glibc
internal import HostSystem
internal import Synchronization

// MARK: - Everything past the page cache

extension HostFile {
  /// Reads whole units and gives the bytes that were asked for; nil if the file system refuses.
  func readDirect(
    into buffer: inout MutableRawSpan, at offset: HostOffset
  ) throws(StorageError) -> Int? {
    guard let unit = directUnit else { return nil }
    // In bounds and alive: only the address is looked at, inside the span's own closure.
    let address = unsafe buffer.withUnsafeBytes { memory in UInt(bitPattern: memory.baseAddress) }
    if (offset.rawValue | UInt64(buffer.byteCount)) % unit == 0,
      address % directMemoryAlignment == 0
    {
      return try readUnits(into: &buffer, at: offset)
    }
    var done = 0
    while done < buffer.byteCount {
      let place = offset.rawValue + UInt64(done)
      let lead = Int(place % unit)
      let count = min(Self.bounceSize - lead, buffer.byteCount - done)
      let whole = (lead + count + Int(unit) - 1) / Int(unit) * Int(unit)
      var part = buffer.slice(done..<done + count)
      let found = try ThreadScratch.withBuffer(.bounce, byteCount: whole) {
        bounce throws(StorageError) -> Int? in
        guard let found = try readUnits(into: &bounce, at: HostOffset(place - UInt64(lead))) else {
          return nil
        }
        let end = max(lead, min(found, lead + count))
        part.copy(bounce.bytes.extracting(lead..<end))
        return end - lead
      }
      guard let found else { return nil }
      done += found
      if found < count { break }
    }
    return done
  }

  /// Writes whole units as they are and the parts of others into what is there.
  func writeUnits(
    _ bytes: RawSpan, at offset: HostOffset, unit: UInt64
  ) throws(StorageError) {
    let split = WriteSplit(offset: offset.rawValue, count: bytes.byteCount, unit: unit)
    let tail = split.head + split.middle
    try besideWrites(at: offset, length: UInt64(bytes.byteCount)) { () throws(StorageError) in
      if !usesDirectIO { return try writeBuffered(bytes, at: offset) }
      if split.head > 0 {
        try writePart(bytes.extracting(0..<split.head), at: offset, unit: unit)
      }
      if split.middle > 0 {
        try writeDirect(bytes.extracting(split.head..<tail), at: offset + UInt64(split.head))
      }
      if split.tail > 0 {
        try writePart(
          bytes.extracting(tail..<bytes.byteCount), at: offset + UInt64(tail), unit: unit)
      }
    }
  }

  /// Keeps off writes that have read a unit of the range and are about to put it back.
  func besideWrites(
    at offset: HostOffset, length: UInt64, _ body: () throws(StorageError) -> Void
  ) throws(StorageError) {
    guard let unit = claimedUnit, length > 0 else { return try body() }
    let start = offset.rawValue
    let units = start / unit..<(start + length - 1) / unit + 1
    // Lock: sectors of the file are claimed last of all, across system calls only.
    try claims.during(.writing, of: units, body)
  }

  /// Writes a part of one unit, whose claim is held.
  private func writePart(
    _ bytes: RawSpan, at offset: HostOffset, unit: UInt64
  ) throws(StorageError) {
    let skip = Int(offset.rawValue % unit)
    let end = skip + bytes.byteCount
    let place = HostOffset(offset.rawValue - UInt64(skip))
    let isWritten = try ThreadScratch.withBuffer(.bounce, byteCount: Int(unit)) {
      buffer throws(StorageError) in
      guard let found = try readUnits(into: &buffer, at: place) else { return false }
      // The file ends in here, and must not become longer than what is written.
      if max(found, end) < Int(unit) { return false }
      buffer.fillWithZeroes(found..<Int(unit))
      buffer.copy(bytes, at: skip)
      try writeAligned(buffer.bytes, at: place)
      return true
    }
    if !isWritten { try writeBuffered(bytes, at: offset) }
  }

  /// Reads at aligned places only; nil once the file system has refused that.
  private func readUnits(
    into buffer: inout MutableRawSpan, at offset: HostOffset
  ) throws(StorageError) -> Int? {
    do throws(SystemError) {
      switch direct {
      case .some(let door):
        return try SystemCall.readUnits(
          door.descriptor.raw, into: &buffer, at: offset.rawValue, unit: Int(door.unit))
      case .none: return nil
      }
    } catch {
      if error.number != EINVAL { throw .system(path: path, error) }
      // As in `writeAligned`: the page cache takes everything from here on.
      isDirectRefused.store(true, ordering: .relaxed)
      return nil
    }
  }
}
