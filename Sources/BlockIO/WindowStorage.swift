package import HostSystem

// A part of a file as if it were a file of its own: what QEMU's raw driver shows with `offset` and
// `size`. It is only ever below an overlay, so it cannot be written.
//
//     file      0 ........... start ........... start + length ........ end
//     window                  0 ............... length

/// A window of another storage, for reading. Closing it closes the whole.
package final class WindowStorage: BlockStorage {
  private let whole: any BlockStorage
  private let start: UInt64
  private let length: UInt64

  /// Shows `length` bytes from `start` on; behind the end of the whole there are none.
  ///
  /// The sum has to be an offset that a file can have.
  package init(_ whole: any BlockStorage, from start: UInt64, length: UInt64) {
    precondition(
      start <= UInt64(Int64.max) && length <= UInt64(Int64.max) - start,
      "a window ends beyond the largest file")
    self.whole = whole
    self.start = start
    self.length = length
  }

  /// The whole's path.
  package var path: String { whole.path }
  /// A window is never written.
  package var isReadOnly: Bool { true }
  /// The whole's: two windows of one file are the same file.
  package var identity: StorageIdentity { whole.identity }
  /// A window is never written.
  package var highestWritten: UInt64 { 0 }

  /// The bytes that the whole has in the window.
  package func size() throws(StorageError) -> UInt64 {
    let end = try whole.size()
    return end <= start ? 0 : min(length, end - start)
  }

  /// What the whole takes up, but no more than the window.
  package func allocatedBytes() throws(StorageError) -> UInt64 {
    min(length, try whole.allocatedBytes())
  }

  /// Reads what lies in the window.
  package func read(
    into buffer: inout MutableRawSpan, at offset: HostOffset
  ) throws(StorageError) -> Int {
    guard offset.rawValue < length else { return 0 }
    let count = Int(min(UInt64(buffer.byteCount), length - offset.rawValue))
    var part = buffer.slice(0..<count)
    return try whole.read(into: &part, at: offset + start)
  }

  /// The next data in the window.
  package func nextData(at offset: HostOffset) throws(StorageError) -> HostOffset? {
    guard offset.rawValue < length, let data = try whole.nextData(at: offset + start),
      data.rawValue - start < length
    else { return nil }
    return HostOffset(data.rawValue - start)
  }

  /// The next hole; the end of the window counts as one, as that of a file does.
  package func nextHole(at offset: HostOffset) throws(StorageError) -> HostOffset? {
    guard offset.rawValue < length else { return nil }
    guard let hole = try whole.nextHole(at: offset + start) else { return offset }
    return HostOffset(min(hole.rawValue - start, length))
  }

  /// Gives locks of the whole back.
  package func becomeBacking() { whole.becomeBacking() }

  /// Flushes the whole.
  package func flush() throws(StorageError) { try whole.flush() }

  /// A window takes none anyway.
  package func refuseWrites() {}

  /// Closes the whole.
  package func close() { whole.close() }
}

// MARK: - What a window refuses

extension WindowStorage {
  private var refusal: StorageError { .readOnly(path: path) }

  /// Refused.
  package func write(
    _ bytes: RawSpan, at offset: HostOffset, intent: WriteIntent
  ) throws(StorageError) { throw refusal }
  /// Refused.
  package func writeZeroes(at offset: HostOffset, length: UInt64) throws(StorageError) {
    throw refusal
  }
  /// Refused.
  package func discard(at offset: HostOffset, length: UInt64) throws(StorageError) {
    throw refusal
  }
  /// Refused.
  package func allocate(at offset: HostOffset, length: UInt64) throws(StorageError) {
    throw refusal
  }
  /// Refused.
  package func truncate(to size: UInt64) throws(StorageError) { throw refusal }
  /// Refused.
  package func share(
    from source: any BlockStorage, at sourceOffset: HostOffset, to offset: HostOffset,
    length: UInt64
  ) throws(StorageError) -> Bool { throw refusal }
}
