package import HostSystem
internal import Synchronization

// MARK: - Room, holes and blocks that files share

extension HostFile {
  /// Makes a range zero: by fallocate where the host can, by a hole, or by writing.
  package func writeZeroes(at offset: HostOffset, length: UInt64) throws(StorageError) {
    try checkWrite(at: offset, length: length)
    if length == 0 { return }
    let end = offset.rawValue + length
    try besideWrites(at: offset, length: length) { () throws(StorageError) in
      switch try attempt(.zero, at: offset, length: length) {
      case .done: break
      case .noRoom: try writeZeroBytes(from: offset.rawValue, to: end)
      case .impossible:
        if sort == .regular, try attempt(.punch, at: offset, length: length) == .done {
          try grow(to: end)
        } else {
          try writeZeroBytes(from: offset.rawValue, to: end)
        }
      }
    }
    wrote(end)
  }

  /// Gives a range back to the host if it can take it.
  package func discard(at offset: HostOffset, length: UInt64) throws(StorageError) {
    try checkWrite(at: offset, length: length)
    if length == 0 { return }
    try besideWrites(at: offset, length: length) { () throws(StorageError) in
      _ = try attempt(.punch, at: offset, length: length)
    }
  }

  /// Reserves room for a range; where the host has no such call the file only grows.
  package func allocate(at offset: HostOffset, length: UInt64) throws(StorageError) {
    try checkWrite(at: offset, length: length)
    if length == 0 { return }
    let end = offset.rawValue + length
    if try attempt(.reserve, at: offset, length: length) != .done { try grow(to: end) }
    reached(end)
  }

  /// Makes the file exactly `size` bytes long.
  package func truncate(to size: UInt64) throws(StorageError) {
    try checkWrite(at: HostOffset(size), length: 0)
    if sort == .blockDevice {
      // A disk has the length that it has; shorter is a matter of who uses it.
      if try self.size() < size {
        throw .outOfRange(path: path, offset: .zero, length: size)
      }
      return
    }
    // Before the call: a file that is shorter than this was cut by somebody else.
    if size < reach.load(ordering: .relaxed) { reach.store(size, ordering: .releasing) }
    try calling(path) { () throws(SystemError) in
      try SystemCall.truncate(descriptor.raw, to: size)
    }
    reached(size)
  }

  private enum Attempt {
    case done
    /// The host or the file system cannot do it.
    case impossible
    /// A full file system cannot cut what it has in pieces: that takes room for the list of them, where
    /// writing the bytes takes none. Making room must not fail for want of it.
    case noRoom
  }

  /// Runs fallocate.
  private func attempt(
    _ what: SystemCall.Allocation, at offset: HostOffset, length: UInt64
  ) throws(StorageError) -> Attempt {
    do throws(SystemError) {
      try SystemCall.allocate(descriptor.raw, what, at: offset.rawValue, length: length)
      return .done
    } catch {
      if error.kind == .unsupported || error.kind == .invalid { return .impossible }
      if error.kind == .noSpace, what != .reserve { return .noRoom }
      throw .system(path: path, error)
    }
  }

  private func grow(to end: UInt64) throws(StorageError) {
    if try size() < end { try truncate(to: end) }
  }

  private func writeZeroBytes(from start: UInt64, to end: UInt64) throws(StorageError) {
    let most = min(end - start, 1 << 20)
    try ThreadScratch.withBuffer(.bounce, byteCount: Int(most)) { buffer throws(StorageError) in
      buffer.fillWithZeroes()
      var place = start
      while place < end {
        let count = min(most, end - place)
        let zeroes = buffer.bytes.extracting(0..<Int(count))
        if avoidsPageCache, let unit = directUnit, (place | count) % unit == 0 {
          try writeAligned(zeroes, at: HostOffset(place))
        } else {
          try writeBuffered(zeroes, at: HostOffset(place))
        }
        place += count
      }
    }
  }

  /// The first byte from `offset` on that is not in a hole.
  package func nextData(at offset: HostOffset) throws(StorageError) -> HostOffset? {
    try checkRange(at: offset, length: 0)
    let reach = HostOffset(reach.load(ordering: .acquiring))
    let data = try seek(from: offset, withoutHoles: offset) { () throws(SystemError) in
      try SystemCall.seekData(descriptor.raw, from: offset.rawValue)
    }
    if data != nil || offset >= reach { return data }
    // Only holes are left. What was cut off behind them counts as data, so that it is missed.
    let end = HostOffset(try size())
    return end < reach ? max(offset, end) : nil
  }

  /// The first byte from `offset` on that is in a hole, or the end of the file.
  package func nextHole(at offset: HostOffset) throws(StorageError) -> HostOffset? {
    try checkRange(at: offset, length: 0)
    let reach = HostOffset(reach.load(ordering: .acquiring))
    let hole = try seek(from: offset, withoutHoles: nil) { () throws(SystemError) in
      try SystemCall.seekHole(descriptor.raw, from: offset.rawValue)
    }
    // Short of where the file reached, its end is no hole.
    if hole ?? offset >= reach { return hole }
    return hole ?? offset < HostOffset(try size()) ? hole : reach
  }

  /// Asks the host, or answers for a file whose host knows no holes: all is data up to the end.
  private func seek(
    from offset: HostOffset, withoutHoles answer: HostOffset?,
    _ ask: () throws(SystemError) -> UInt64?
  ) throws(StorageError) -> HostOffset? {
    do throws(SystemError) {
      return try ask().map { HostOffset($0) }
    } catch {
      if error.kind != .unsupported && error.kind != .invalid {
        throw .system(path: path, error)
      }
    }
    let end = HostOffset(try size())
    return offset < end ? answer ?? end : nil
  }

  /// Clones the range: XFS, btrfs and others have files share blocks until one writes.
  package func share(
    from source: any BlockStorage, at sourceOffset: HostOffset, to offset: HostOffset,
    length: UInt64
  ) throws(StorageError) -> Bool {
    try checkWrite(at: offset, length: length)
    guard let source = source as? HostFile else { return false }
    try source.checkRange(at: sourceOffset, length: length)
    if length == 0 { return true }
    // File systems clone whole blocks; none has smaller ones than this with reflinks worth it.
    if (sourceOffset.rawValue | offset.rawValue | length) % 4096 != 0 { return false }
    var isShared = false
    try besideWrites(at: offset, length: length) { () throws(StorageError) in
      do throws(SystemError) {
        try SystemCall.cloneRange(
          from: source.descriptor.raw, at: sourceOffset.rawValue,
          to: descriptor.raw, at: offset.rawValue, length: length)
        isShared = true
      } catch {
        if !Self.meansImpossible(error) { throw .system(path: path, error) }
      }
    }
    if isShared { reached(offset.rawValue + length) }
    return isShared
  }

  /// The host cannot do it for these two files, which says nothing against reading and writing.
  private static func meansImpossible(_ error: SystemError) -> Bool {
    switch error.kind {
    case .unsupported, .invalid, .busy, .notPermitted, .accessDenied: true
    case .notFound, .readOnly, .exists, .noSpace, .corrupt, .io, .tooLarge, .interrupted,
      .notEmpty, .loop:
      false
    }
  }
}
