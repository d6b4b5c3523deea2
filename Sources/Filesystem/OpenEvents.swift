internal import Control
internal import Fuse
internal import Glibc
internal import HostSystem

// A reader of `events`: a place in the log of events, and whatever waits for the next one.
//
//     read:   an event is there -> its bytes     none -> parked, until one comes or the reader goes
//     poll:   an event is there -> readable      none -> the handle is kept, and notified once
//
// Readers come in two kinds. Most read on from where they are, and wait. Others, such as tail -f, look for the
// end of the file first, read what they think is there, and then ask for the file's size every now and
// then; they would wait for ever in their first read. They are known by their moved position, and get
// the end of the file while there is nothing. For them the file's size grows with the events, from a
// size that no event is needed for (`sizeWithoutEvents`), so that they find an end to look for.
// Neither kind is given anything by its position: every open gets, in order, what happens after it.

/// A reader of events.
final class OpenEvents: OpenFile {
  /// The size of the file before the first event: more than such readers look at before the end.
  static let sizeWithoutEvents: UInt64 = 1 << 20

  private struct State: ~Copyable {
    var subscription: EventSubscription?
    /// What a read had no room for, of one event at most.
    var rest: [UInt8] = []
    /// Where a reader is that reads on.
    var position: UInt64 = 0
    /// It has moved its position.
    var isFollower = false
    var parked: [Parked] = []
    var handle: PollHandle?
  }

  private struct Parked {
    var read: ParkedRead
    var length: Int
  }

  private enum Answer {
    case bytes([UInt8])
    case end
    case nothing
  }

  private let state = Monitor(State())

  init(_ events: EventLog) {
    let subscription = events.subscribe { [weak self] in self?.deliver() }
    state.withLock { $0.subscription = subscription }
  }

  func read(at offset: UInt64, length: Int, flags: FileFlags, reply: consuming ReadReply) {
    let answer = state.withLock { state -> Answer in
      if offset != state.position { state.isFollower = true }
      // Who waits already is served first.
      if state.parked.contains(where: { $0.read.isWaiting }) { return .nothing }
      let bytes = Self.take(length, from: &state)
      if !bytes.isEmpty || length == 0 { return .bytes(bytes) }
      return state.isFollower ? .end : .nothing
    }
    switch answer {
    case .bytes(let bytes): return reply.send(bytes, at: 0, length: bytes.count)
    case .end: return reply.send([], at: 0, length: 0)
    case .nothing: if flags.isNonblocking { return reply.fail(EAGAIN) }
    }
    let parked = Parked(read: reply.park(), length: length)
    state.withLock { state in
      // Who was interrupted and asks again leaves a read behind that nobody waits for.
      state.parked.removeAll { !$0.read.isWaiting }
      state.parked.append(parked)
    }
    // An event may have come while the reader was parked.
    deliver()
  }

  func poll(_ handle: consuming PollHandle?, reply: consuming PollReply) {
    var handle = consume handle
    let isReady = state.withLock { state -> Bool in
      // Order: the handle is in place before the log is looked at, so that an event either is seen here or
      // finds the handle.
      if let new = handle.take() { state.handle = consume new }
      return !state.rest.isEmpty || state.subscription?.hasNext == true
    }
    reply.send(isReady ? [.readable] : [])
  }

  func flush(reply: consuming StatusReply) { reply.succeed() }

  func released() {
    let (subscription, parked) = state.withLock { state in
      state.handle = nil
      defer {
        state.subscription = nil
        state.parked = []
      }
      return (state.subscription, state.parked)
    }
    subscription?.cancel()
    for parked in parked { parked.read.fail(EINTR) }
  }

  /// Serves whoever waits.
  private func deliver() {
    let handle = state.withLock { state -> PollHandle? in
      while let first = state.parked.first {
        let bytes = Self.take(first.length, from: &state)
        if bytes.isEmpty { break }
        state.parked.removeFirst()
        // Lock: held over the answer, so that two of them go out in order.
        if unsafe !first.read.send(bytes.span.bytes) {
          // It has gone, and has not seen them.
          state.rest = bytes + state.rest
          state.position -= UInt64(bytes.count)
        }
      }
      return state.handle.take()
    }
    handle?.notify()
  }

  /// Takes up to `length` bytes of what is there.
  private static func take(_ length: Int, from state: inout State) -> [UInt8] {
    var bytes = state.rest
    while bytes.count < length, let line = state.subscription?.next() {
      bytes += line.utf8
      bytes.append(UInt8(ascii: "\n"))
    }
    let count = min(max(length, 0), bytes.count)
    state.rest = Array(bytes[count...])
    state.position += UInt64(count)
    return Array(bytes[..<count])
  }
}
