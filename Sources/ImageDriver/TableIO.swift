// Reading and writing tables: exact, as metadata, in arrays.

internal import BlockIO
internal import HostSystem
internal import Qcow2Format

extension BlockStorage {
  /// Reads `count` bytes of a table; a file that ends inside it is an error.
  func readTable(_ count: Int, at offset: UInt64) throws(ImageError) -> [UInt8] {
    var bytes = [UInt8](repeating: 0, count: count)
    var failure: StorageError?
    bytes.withMutableBytes { span in
      do throws(StorageError) { try readExactly(into: &span, at: HostOffset(offset)) } catch {
        failure = error
      }
    }
    if let failure { throw .storage(failure) }
    return bytes
  }

  /// Writes a table or a part of one.
  func writeTable(_ bytes: [UInt8], at offset: UInt64) throws(ImageError) {
    var failure: StorageError?
    bytes.withBytes { span in
      do throws(StorageError) { try write(span, at: HostOffset(offset), intent: .metadata) } catch {
        failure = error
      }
    }
    if let failure { throw .storage(failure) }
  }

  /// Writes bytes that must not stay there in part: if that fails, `previous` is put back.
  ///
  /// A write that fails may have arrived up to any byte, and half an entry names another cluster.
  func replaceTable(
    _ previous: [UInt8], with bytes: [UInt8], at offset: UInt64
  ) throws(ImageError) {
    do { try writeTable(bytes, at: offset) } catch {
      do { try writeTable(previous, at: offset) } catch {
        // The storage takes nothing any more; the caller hears of the first failure.
      }
      throw error
    }
  }

  /// Writes table entries; if that fails, `previous` is put back.
  func replaceEntries(
    _ previous: [UInt64], with entries: [UInt64], at offset: UInt64
  ) throws(ImageError) {
    try replaceTable(previous.bigEndianBytes, with: entries.bigEndianBytes, at: offset)
  }

  /// Reads table entries, which are big-endian on disk.
  func readEntries(_ count: Int, at offset: UInt64) throws(ImageError) -> [UInt64] {
    let bytes = try readTable(count * 8, at: offset)
    return (0..<count).map { BigEndian.uint64(bytes, at: $0 * 8) }
  }

  /// Writes table entries.
  func writeEntries(_ entries: some Collection<UInt64>, at offset: UInt64) throws(ImageError) {
    try writeTable(entries.bigEndianBytes, at: offset)
  }
}

extension Collection<UInt64> {
  /// The numbers as they are on disk.
  fileprivate var bigEndianBytes: [UInt8] {
    var bytes = [UInt8](repeating: 0, count: count * 8)
    for (index, entry) in enumerated() { BigEndian.store(entry, in: &bytes, at: index * 8) }
    return bytes
  }
}

extension [UInt8] {
  /// Lends the bytes for reading.
  func withBytes<Result>(_ body: (RawSpan) -> Result) -> Result {
    // The array outlives the call, and the span does not leave it.
    unsafe body(span.bytes)
  }

  /// Lends the bytes for filling.
  mutating func withMutableBytes(_ body: (inout MutableRawSpan) -> Void) {
    var elements = mutableSpan
    // The array outlives the call, and the span does not leave it.
    var bytes = unsafe elements.mutableBytes
    body(&bytes)
  }
}
