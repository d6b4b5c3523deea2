import Glibc
import HostSystem

@testable import Fuse

/// A file system for the tests: a few files of fixed behaviour under the root.
final class MemoryTree: Operations {
  /// The files, by name; their numbers count from 2 in this order.
  enum Name: String, CaseIterable {
    case bytes, waiting, dropped, failing, link, held, heldPages

    var inode: InodeNumber { InodeNumber(UInt64(Self.allCases.firstIndex(of: self)! + 2)) }

    init?(_ inode: InodeNumber) {
      guard let name = Self.allCases.first(where: { $0.inode == inode }) else { return nil }
      self = name
    }
  }

  let bytes = ByteFile()
  let waiting = WaitingFile()
  /// What `held` has, under a hold; `heldPages` has the content of `bytes` under it.
  let slow = SlowFile()
  let hold: RequestHold
  let changes = Monitor<[AttributeChange]>([])
  let destroyed = Monitor(0)
  let forgotten = Monitor<UInt64>(0)

  init(hold: RequestHold = RequestHold()) { self.hold = hold }

  private func attributes(_ inode: InodeNumber) -> FileAttributes? {
    if inode == .root {
      return FileAttributes(inode: .root, kind: .directory, permissions: 0o755)
    }
    guard let name = Name(inode) else { return nil }
    let kind: FileKind = name == .link ? .symbolicLink : .regular
    var result = FileAttributes(inode: inode, kind: kind, permissions: 0o640)
    if name == .held { result.size = UInt64(SlowFile.size) }
    if name == .bytes || name == .heldPages {
      result.size = UInt64(ByteFile.size)
      result.allocatedSectors = 7
      result.preferredSize = 65536
      result.modified = FileTime(seconds: 1_000_000, nanoseconds: 5)
    }
    return result
  }

  func lookup(_ name: String, in directory: InodeNumber, reply: consuming EntryReply) {
    guard directory == .root, let found = Name(rawValue: name), let it = attributes(found.inode)
    else { return reply.fail(ENOENT) }
    reply.send(it, nameValidFor: .lasting, attributesValidFor: .none)
  }

  func forget(_ inode: InodeNumber, lookups: UInt64) { forgotten.change { $0 += lookups } }

  func attributes(of inode: InodeNumber, reply: consuming AttributesReply) {
    guard let it = attributes(inode) else { return reply.fail(ENOENT) }
    reply.send(it, validFor: .none)
  }

  func change(
    _ change: AttributeChange, of inode: InodeNumber, reply: consuming AttributesReply
  ) {
    changes.withLock { $0.append(change) }
    let isIgnored = change.size == nil || (change.size == 0 && !change.isThroughFile)
    guard isIgnored, let it = attributes(inode) else { return reply.fail(EPERM) }
    reply.send(it, validFor: .none)
  }

  func readLink(_ inode: InodeNumber, reply: consuming LinkReply) { reply.send("bytes") }

  func open(_ inode: InodeNumber, flags: FileFlags, reply: consuming OpenReply) {
    switch Name(inode) {
    case .bytes: reply.send(bytes, caching: .cached)
    case .waiting: reply.send(waiting, caching: .direct, seeking: .refused)
    case .heldPages: reply.send(HoldableFile(bytes, hold), caching: .cached)
    case .held: reply.send(HoldableFile(slow, hold), caching: .direct)
    case .dropped: reply.send(DroppingFile(), caching: .direct)
    case .failing: reply.fail(EROFS)
    case .link, nil: reply.fail(ENOENT)
    }
  }

  func list(_ directory: InodeNumber, from position: UInt64, reply: consuming ListingReply) {
    reply.send { listing in
      for (index, name) in Name.allCases.enumerated().dropFirst(Int(position)) {
        let kind: FileKind = name == .link ? .symbolicLink : .regular
        let next = UInt64(index + 1)
        if !listing.add(name.rawValue, inode: name.inode, kind: kind, next: next) { return }
      }
    }
  }

  func statistics(of inode: InodeNumber, reply: consuming StatisticsReply) {
    reply.send(
      FilesystemStatistics(blockSize: 4096, blocks: 100, freeBlocks: 40, availableBlocks: 30))
  }

  func checkAccess(_ mask: Int32, of inode: InodeNumber, reply: consuming StatusReply) {
    reply.succeed()
  }

  func unmounting() { hold.end() }

  func destroy() {
    hold.end()
    waiting.end()
    destroyed.withLock { $0 += 1 }
  }
}

/// A mebibyte and a bit in memory.
final class ByteFile: OpenFile {
  static let size = (1 << 20) + 777
  let content = Monitor([UInt8](repeating: 0, count: ByteFile.size))
  let allocations = Monitor<[AllocationRequest]>([])
  let syncs = Monitor<[SyncScope]>([])
  let durableWrites = Monitor(0)
  let releases = Monitor(0)

  func read(at offset: UInt64, length: Int, flags: FileFlags, reply: consuming ReadReply) {
    let content = content.withLock { $0 }
    func number(_ error: SystemError) -> Int32 { error.number }
    reply.fill(upTo: length, failure: number) { (span) throws(SystemError) in
      let start = min(Int(offset), content.count)
      let count = min(span.byteCount, content.count - start)
      for index in 0..<count {
        span.storeBytes(of: content[start + index], toByteOffset: index, as: UInt8.self)
      }
      return count
    }
  }

  func write(_ bytes: RawSpan, at offset: UInt64, flags: FileFlags, reply: consuming WriteReply) {
    guard Int(offset) + bytes.byteCount <= Self.size else { return reply.fail(ENOSPC) }
    if flags.writesDurably { durableWrites.withLock { $0 += 1 } }
    content.withLock { content in
      for index in 0..<bytes.byteCount {
        content[Int(offset) + index] = bytes.unsafeLoad(fromByteOffset: index, as: UInt8.self)
      }
    }
    reply.send(written: bytes.byteCount)
  }

  func synchronise(_ scope: SyncScope, reply: consuming StatusReply) {
    syncs.withLock { $0.append(scope) }
    reply.succeed()
  }

  func allocate(
    _ request: AllocationRequest, at offset: UInt64, length: UInt64, reply: consuming StatusReply
  ) {
    allocations.withLock { $0.append(request) }
    reply.succeed()
  }

  func seek(to target: SeekTarget, from offset: UInt64, reply: consuming SeekReply) {
    switch target {
    case .data: reply.send(offset + 100)
    case .hole: reply.fail(ENXIO)
    }
  }

  func released() { releases.change { $0 += 1 } }
}

/// A file whose reads wait until a text is given, and that can be polled.
final class WaitingFile: OpenFile {
  struct State: ~Copyable {
    var reads: [ParkedRead] = []
    var handle: PollHandle?
    var text: [UInt8]?
  }
  let state = Monitor(State())

  func read(at offset: UInt64, length: Int, flags: FileFlags, reply: consuming ReadReply) {
    if let text = state.withLock({ $0.text }) {
      return reply.send(text, at: offset, length: length)
    }
    if flags.isNonblocking { return reply.fail(EAGAIN) }
    let read = reply.park()
    state.change { $0.reads.append(read) }
  }

  func poll(_ handle: consuming PollHandle?, reply: consuming PollReply) {
    var handle = consume handle
    let isReady = state.change { state -> Bool in
      if let new = handle.take() { state.handle = consume new }
      return state.text != nil
    }
    reply.send(isReady ? [.readable] : [])
  }

  /// Waits until a read is parked.
  func awaitReader() { state.wait(while: { $0.reads.isEmpty }) }

  /// Answers all readers; gives how many had not gone.
  func give(_ text: String) -> Int {
    let bytes = Array(text.utf8)
    let reads = state.change { state -> [ParkedRead] in
      state.text = bytes
      if let handle = state.handle.take() { handle.notify() }
      defer { state.reads = [] }
      return state.reads
    }
    return reads.count { $0.send(bytes.span.bytes) }
  }

  func end() {
    let reads = state.change { state -> [ParkedRead] in
      state.handle = nil
      defer { state.reads = [] }
      return state.reads
    }
    for read in reads { read.fail(ENODEV) }
  }
}

/// A file that forgets its replies.
final class DroppingFile: OpenFile {
  func read(at offset: UInt64, length: Int, flags: FileFlags, reply: consuming ReadReply) {}
}
