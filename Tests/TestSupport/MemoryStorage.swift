package import BlockIO
import Glibc
package import HostSystem
import Synchronization

/// Storage in memory that fails only beyond its largest size, for tests of what lies above.
package final class MemoryStorage: BlockStorage {
  private static let nextInode = Atomic<UInt64>(1)

  /// The name that errors carry.
  package let path: String
  /// Each storage is a file of its own.
  package let identity: StorageIdentity
  private let content: Monitor<SparseBytes>
  private let largest: UInt64
  private let refusesWrites: Atomic<Bool>
  private let flushes = Atomic<Int>(0)
  private let written = Atomic<UInt64>(0)

  /// Storage that holds `bytes`.
  package convenience init(
    path: String = "/memory", bytes: [UInt8] = [], isReadOnly: Bool = false
  ) {
    var content = SparseBytes()
    content.put(bytes, at: 0)
    self.init(path: path, content: content, isReadOnly: isReadOnly)
  }

  /// Storage that holds `content` and gets no longer than `largest`, as on a host with such a limit.
  package init(
    path: String = "/memory", content: SparseBytes, isReadOnly: Bool = false,
    largest: UInt64 = .max
  ) {
    self.path = path
    self.largest = largest
    let inode = Self.nextInode.wrappingAdd(1, ordering: .relaxed).newValue
    identity = StorageIdentity(device: 0, inode: inode)
    self.content = Monitor(content)
    refusesWrites = Atomic(isReadOnly)
  }

  /// Writes are refused.
  package var isReadOnly: Bool { refusesWrites.load(ordering: .relaxed) }
  /// The end of the last byte that was written.
  package var highestWritten: UInt64 { written.load(ordering: .relaxed) }
  /// How often it was flushed.
  package var flushCount: Int { flushes.load(ordering: .relaxed) }
  /// All bytes as they are now.
  package var snapshot: SparseBytes { content.withLock { $0 } }

  /// The length.
  package func size() throws(StorageError) -> UInt64 { content.withLock { $0.count } }
  /// The bytes of the touched pages.
  package func allocatedBytes() throws(StorageError) -> UInt64 { content.withLock { $0.allocated } }

  /// Reads what there is.
  package func read(
    into buffer: inout MutableRawSpan, at offset: HostOffset
  ) throws(StorageError) -> Int {
    let wanted = buffer.byteCount
    let bytes = content.withLock { content -> [UInt8] in
      let start = offset.rawValue
      let count = start < content.count ? min(UInt64(wanted), content.count - start) : 0
      return content.bytes(start, Int(count))
    }
    buffer.copy(bytes.rawSpan)
    return bytes.count
  }

  /// Writes.
  package func write(
    _ bytes: RawSpan, at offset: HostOffset, intent: WriteIntent
  ) throws(StorageError) {
    let copy = bytes.copied()
    try checkRoom(offset, UInt64(copy.count))
    try change { $0.put(copy, at: offset.rawValue) }
    written.max(offset.rawValue + UInt64(copy.count), ordering: .relaxed)
  }

  /// Drops the pages and grows.
  package func writeZeroes(at offset: HostOffset, length: UInt64) throws(StorageError) {
    try checkRoom(offset, length)
    try change { content in
      content.punch(offset.rawValue, length)
      content.resize(to: max(content.count, offset.rawValue + length))
    }
    written.max(offset.rawValue + length, ordering: .relaxed)
  }

  /// Drops the pages.
  package func discard(at offset: HostOffset, length: UInt64) throws(StorageError) {
    try change { $0.punch(offset.rawValue, length) }
  }

  /// Grows.
  package func allocate(at offset: HostOffset, length: UInt64) throws(StorageError) {
    try checkRoom(offset, length)
    try change { $0.resize(to: max($0.count, offset.rawValue + length)) }
  }

  /// Sets the length.
  package func truncate(to size: UInt64) throws(StorageError) {
    try checkRoom(.zero, size)
    try change { $0.resize(to: size) }
  }

  /// Counts.
  package func flush() throws(StorageError) { flushes.wrappingAdd(1, ordering: .relaxed) }

  /// The next touched page.
  package func nextData(at offset: HostOffset) throws(StorageError) -> HostOffset? {
    content.withLock { $0.nextData(offset.rawValue) }.map { HostOffset($0) }
  }

  /// The next untouched page.
  package func nextHole(at offset: HostOffset) throws(StorageError) -> HostOffset? {
    content.withLock { $0.nextHole(offset.rawValue) }.map { HostOffset($0) }
  }

  /// Memory shares nothing.
  package func share(
    from source: any BlockStorage, at sourceOffset: HostOffset, to offset: HostOffset,
    length: UInt64
  ) throws(StorageError) -> Bool { false }

  /// There are no locks here.
  package func becomeBacking() { refusesWrites.store(true, ordering: .relaxed) }

  /// Serves as the test says.
  package func changeRole(to role: StorageRole) throws(StorageError) {
    refusesWrites.store(role == .backing, ordering: .relaxed)
  }

  /// Refuses writes from now on.
  package func refuseWrites() { refusesWrites.store(true, ordering: .relaxed) }

  /// Refuses writes from now on.
  package func close() { refusesWrites.store(true, ordering: .relaxed) }

  private func checkRoom(_ offset: HostOffset, _ length: UInt64) throws(StorageError) {
    if offset.rawValue > largest || length > largest - offset.rawValue {
      throw .system(path: path, SystemError(call: "write", number: EFBIG))
    }
  }

  private func change(_ body: (inout SparseBytes) -> Void) throws(StorageError) {
    if isReadOnly { throw .readOnly(path: path) }
    content.withLock { body(&$0) }
  }
}

extension BlockStorage {
  /// `count` bytes from `offset` on; what lies behind the end is zero.
  package func bytes(at offset: UInt64, count: Int) throws(StorageError) -> [UInt8] {
    var bytes = [UInt8](repeating: 0, count: count)
    var span = bytes.mutableRawSpan
    try readZeroFilled(into: &span, at: HostOffset(offset))
    return bytes
  }

  /// Writes an array.
  package func put(
    _ bytes: [UInt8], at offset: UInt64, intent: WriteIntent = .data
  ) throws(StorageError) {
    try write(bytes.rawSpan, at: HostOffset(offset), intent: intent)
  }
}
