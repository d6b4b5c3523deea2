// A disk that tells the truth about what a crash may leave.
//
// What a flush has not covered lies apart (see UnsyncedWrites). A crash picks for every sector of 512 bytes
// one of the versions that were written since the last flush, or what was there before: writes are
// dropped, torn at any sector, and reordered at will. The length of the file is treated the same. A crash
// copies nothing but what arrived, so thousands a second can be looked at.
//
// Calls are counted. One can be made to fail, or the power to go at one: from then on all fail. Whoever
// watches hears of each call that changed something, after it.

package import BlockIO
package import HostSystem

/// Storage in memory that keeps apart what is not durable yet, crashes, and fails on demand.
package final class SimulatedDisk: BlockStorage {
  /// The bytes that are written as one.
  package static let sectorSize: UInt64 = 512

  /// What is to go wrong.
  package enum Fault: Sendable, Equatable {
    /// This call, counted from 1, fails, and the next ones work.
    case fails(call: Int)
    /// This call and all later ones fail.
    case losesPower(call: Int)
    /// Every write that needs more than this many bytes of file fails for want of room.
    case isFull(bytes: UInt64)
  }

  fileprivate struct State {
    var seen = SparseBytes()
    var durable = SparseBytes()
    var unsynced = UnsyncedWrites()
    var calls = 0
    var highestWritten: UInt64 = 0
    var fault: Fault?
    var flushFailed = false
    var random: SeededGenerator
    var role: StorageRole = .active
    var isStopped = false
    var isClosed = false

    var refusesWrites: Bool { role == .backing || isStopped || isClosed }
  }

  /// The name that errors carry.
  package let path: String
  /// The file; it stays the same over a crash.
  package let identity: StorageIdentity
  /// The end of the last byte that was written.
  package var highestWritten: UInt64 { state.withLock { $0.highestWritten } }
  private let state: Monitor<State>
  private let watch: DiskWatch?
  private let sharesBlocks: Bool

  /// An empty disk; the seed decides how much of a failing write arrives.
  package init(
    path: String = "/simulated", seed: UInt64, inode: UInt64 = 1, watch: DiskWatch? = nil,
    sharesBlocks: Bool = false
  ) {
    self.path = path
    self.watch = watch
    self.sharesBlocks = sharesBlocks
    identity = StorageIdentity(device: 1, inode: inode)
    state = Monitor(State(random: SeededGenerator(seed: seed)))
  }

  /// A disk on which all of `bytes` are durable.
  package convenience init(
    path: String = "/simulated", seed: UInt64, inode: UInt64 = 1, watch: DiskWatch? = nil,
    sharesBlocks: Bool = false, durable bytes: SparseBytes
  ) {
    self.init(path: path, seed: seed, inode: inode, watch: watch, sharesBlocks: sharesBlocks)
    state.withLock { state in
      state.seen = bytes
      state.durable = bytes
    }
  }

  /// Sets or takes back what is to go wrong.
  package func inject(_ fault: Fault?) { state.withLock { $0.fault = fault } }

  /// How many calls were made: reads, writes, zeroes, discards, allocations, truncations, flushes.
  package var callCount: Int { state.withLock { $0.calls } }
  /// How many sectors a crash could still change.
  package var pendingSectors: Int { state.withLock { $0.unsynced.sectorCount } }
  /// A crash would change nothing.
  package var isDurable: Bool { state.withLock { $0.unsynced.isEmpty } }
  /// All bytes as a reader sees them.
  package var snapshot: SparseBytes { state.withLock { $0.seen } }
  /// Writes are refused.
  package var isReadOnly: Bool { state.withLock { $0.refusesWrites } }
  /// Whoever had it has given it back.
  package var isClosed: Bool { state.withLock { $0.isClosed } }

  /// All that a crash at this moment may make use of; shares its pages with the disk.
  package var moment: Moment {
    state.withLock { Moment(durable: $0.durable, unsynced: $0.unsynced) }
  }

  /// A disk at one moment, from which crashes can be made.
  package struct Moment: Sendable {
    fileprivate let durable: SparseBytes
    fileprivate let unsynced: UnsyncedWrites

    /// What one crash leaves; `seed` decides which sectors arrived.
    package func bytesAfterCrash(seed: UInt64) -> SparseBytes {
      unsynced.crash(durable, seed: seed)
    }
  }

  /// The disk as one crash leaves it; `seed` decides which sectors arrived. This one stays as it is.
  package func crash(seed: UInt64) -> SimulatedDisk {
    SimulatedDisk(
      path: path, seed: seed, inode: identity.inode, sharesBlocks: sharesBlocks,
      durable: moment.bytesAfterCrash(seed: seed))
  }

  /// The length.
  package func size() throws(StorageError) -> UInt64 { state.withLock { $0.seen.count } }
  /// The bytes of the touched pages.
  package func allocatedBytes() throws(StorageError) -> UInt64 {
    state.withLock { $0.seen.allocated }
  }

  /// Reads what there is.
  package func read(
    into buffer: inout MutableRawSpan, at offset: HostOffset
  ) throws(StorageError) -> Int {
    let wanted = UInt64(buffer.byteCount)
    let (content, count) = try call("read") { state, fails throws(StorageError) in
      if fails { throw self.error("read", .io) }
      let start = offset.rawValue
      // Taken out, since a span cannot be lent to the closure; the pages are shared.
      return (state.seen, start < state.seen.count ? min(wanted, state.seen.count - start) : 0)
    }
    var part = buffer.slice(0..<Int(count))
    content.read(into: &part, at: offset.rawValue)
    return Int(count)
  }

  /// Writes to what is not durable yet; a failing write arrives up to some sector.
  package func write(
    _ bytes: RawSpan, at offset: HostOffset, intent: WriteIntent
  ) throws(StorageError) {
    let copy = bytes.copied()
    try store(copy, at: offset.rawValue, call: "write", .write(intent))
  }

  /// Writes zeroes.
  package func writeZeroes(at offset: HostOffset, length: UInt64) throws(StorageError) {
    let zeroes = [UInt8](repeating: 0, count: Int(length))
    try store(zeroes, at: offset.rawValue, call: "fallocate", .zero)
  }

  /// Zeroes what lies inside the file.
  package func discard(at offset: HostOffset, length: UInt64) throws(StorageError) {
    let end = min(offset.rawValue + length, try size())
    let count = end > offset.rawValue ? end - offset.rawValue : 0
    let zeroes = [UInt8](repeating: 0, count: Int(count))
    try store(zeroes, at: offset.rawValue, call: "fallocate", .discard)
  }

  /// Grows.
  package func allocate(at offset: HostOffset, length: UInt64) throws(StorageError) {
    let end = offset.rawValue + length
    try setSize("fallocate") { max($0, end) }
  }

  /// Sets the length.
  package func truncate(to size: UInt64) throws(StorageError) {
    try setSize("ftruncate") { _ in size }
  }

  /// Makes all durable, or fails and will always.
  package func flush() throws(StorageError) {
    try call("fdatasync") { state, fails throws(StorageError) in
      if fails { state.flushFailed = true }
      if state.flushFailed {
        throw .flushFailed(path: self.path, SystemError(call: "fdatasync", number: 5))
      }
      state.durable = state.seen
      state.unsynced.clear()
    }
    tell(.flush, 0, 0)
  }

  /// The next touched page.
  package func nextData(at offset: HostOffset) throws(StorageError) -> HostOffset? {
    state.withLock { $0.seen.nextData(offset.rawValue) }.map { HostOffset($0) }
  }

  /// The next untouched page.
  package func nextHole(at offset: HostOffset) throws(StorageError) -> HostOffset? {
    state.withLock { $0.seen.nextHole(offset.rawValue) }.map { HostOffset($0) }
  }

  /// Shares whole sectors with another such disk, if it can at all: a write of what is there.
  package func share(
    from source: any BlockStorage, at sourceOffset: HostOffset, to offset: HostOffset,
    length: UInt64
  ) throws(StorageError) -> Bool {
    guard sharesBlocks, let source = source as? SimulatedDisk else { return false }
    if (sourceOffset.rawValue | offset.rawValue | length) % Self.sectorSize != 0 { return false }
    let content = source.snapshot
    if sourceOffset.rawValue + length > content.count { return false }
    let bytes = content.bytes(sourceOffset.rawValue, Int(length))
    try store(bytes, at: offset.rawValue, call: "FICLONERANGE", .write(.data))
    return true
  }

  /// There are no locks here.
  package func becomeBacking() { state.withLock { $0.role = .backing } }

  /// Serves as the test says.
  package func changeRole(to role: StorageRole) throws(StorageError) {
    state.withLock { $0.role = role }
  }

  /// Refuses writes until it is opened anew.
  package func refuseWrites() { state.withLock { $0.isStopped = true } }

  /// Refuses writes from now on.
  package func close() { state.withLock { $0.isClosed = true } }

  /// Serves again after a close.
  package func reopen() { state.withLock { ($0.isStopped, $0.isClosed) = (false, false) } }

  private func tell(_ kind: DiskChange.Kind, _ offset: UInt64, _ length: UInt64) {
    watch?.tell(DiskChange(path: path, kind: kind, offset: offset, length: length))
  }

  private func error(_ call: String, _ kind: FailureKind) -> StorageError {
    .system(path: path, SystemError(call: call, number: kind == .noSpace ? 28 : 5))
  }

  /// Counts a call and says whether it is one that is to fail.
  private func call<Result>(
    _ name: String, _ body: (inout State, Bool) throws(StorageError) -> Result
  ) throws(StorageError) -> Result {
    try state.withLock { state throws(StorageError) in
      state.calls += 1
      let fails =
        switch state.fault {
        case .fails(let call): call == state.calls
        case .losesPower(let call): call <= state.calls
        case .isFull, nil: false
        }
      return try body(&state, fails)
    }
  }

  private func store(
    _ bytes: [UInt8], at offset: UInt64, call name: String, _ kind: DiskChange.Kind
  ) throws(StorageError) {
    try call(name) { state, fails throws(StorageError) in
      if state.refusesWrites { throw .readOnly(path: self.path) }
      if case .isFull(let limit) = state.fault, offset + UInt64(bytes.count) > limit {
        throw self.error(name, .noSpace)
      }
      var arriving = bytes
      if fails {
        // Part of it is on its way already: up to any byte, and if the power goes, whole sectors.
        var count = Int.random(in: 0...bytes.count, using: &state.random)
        if case .losesPower = state.fault, count < bytes.count {
          count = max(0, count - Int((offset + UInt64(count)) % Self.sectorSize))
        }
        arriving.removeLast(bytes.count - count)
      }
      state.put(arriving, at: offset)
      if fails { throw self.error(name, .io) }
      state.highestWritten = max(state.highestWritten, offset + UInt64(bytes.count))
    }
    tell(kind, offset, UInt64(bytes.count))
  }

  private func setSize(_ name: String, _ size: (UInt64) -> UInt64) throws(StorageError) {
    try call(name) { state, fails throws(StorageError) in
      if state.refusesWrites { throw .readOnly(path: self.path) }
      let wanted = size(state.seen.count)
      if case .isFull(let limit) = state.fault, wanted > limit {
        throw self.error(name, .noSpace)
      }
      if fails { throw self.error(name, .io) }
      let old = state.seen.count
      state.seen.resize(to: wanted)
      // What was cut off is gone for a reader; after a crash it may be back.
      if wanted < old {
        state.unsynced.noteCut(from: wanted, call: state.calls, in: state.seen)
      }
      state.unsynced.note(size: wanted, call: state.calls)
    }
    tell(.resize, 0, 0)
  }
}

extension SimulatedDisk.State {
  /// Writes, and remembers the new version of each sector that it touches.
  fileprivate mutating func put(_ bytes: [UInt8], at offset: UInt64) {
    if bytes.isEmpty { return }
    let old = seen.count
    seen.put(bytes, at: offset)
    if seen.count != old { unsynced.note(size: seen.count, call: calls) }
    unsynced.note(offset, UInt64(bytes.count), call: calls, in: seen)
  }
}
