internal import HostSystem

// One limit for all streams, and how they share it.
//
// The bytes of all go through one bucket (see Throttle), so that together they keep the limit. Who goes
// next is told by a scale of bytes: each stream has a place on it, which moves on by what it takes. A
// stream whose place is lower than another's has had less, and goes first:
//
//                    V (the place of the piece that went last)
//     ---------------+-------------------> bytes
//          ^ claim of B        ^ claim of A          B goes before A
//
// A stream that leaves part of the limit alone, because it is slow, held, or has a lower limit of its
// own, claims nothing meanwhile: what it leaves goes to the others. When it comes back its place is at V,
// less what Throttle lets a late thread make up for, so nobody saves up.
//
// A claim is a promise to come when the bucket is free. Threads sleep till then, and may wake in
// any order; so the others wait a little for the one whose turn it is, and only if it is behind
// by more than half a piece. A claim whose thread does not come lapses: the limit must not go to waste
// for the sake of one. The bucket makes up for what was lost so.

/// One of the streams that share a limit.
struct StreamNumber: Hashable, Sendable {
  let rawValue: UInt64
}

/// A limit in bytes a second that streams share fairly.
struct SharedThrottle: Sendable {
  /// How long a turn is kept for who does not come.
  static let patienceNanoseconds: Int64 = 20_000_000
  /// When to look again whether the one whose turn it is has come.
  private static let lookNanoseconds: Int64 = 2_000_000

  private struct Claim {
    var place: UInt64
    var lapses: MonotonicTime
  }

  private struct Stream {
    /// Where its next piece begins, unless it falls behind.
    var next: UInt64
    var claim: Claim?
  }

  private var bucket: Throttle
  private var place: UInt64 = 0
  private var streams: [StreamNumber: Stream] = [:]
  private var numbers: UInt64 = 0

  init(limit: UInt64, now: MonotonicTime) {
    bucket = Throttle(limit: limit, now: now)
  }

  /// Bytes a second, 0 for no limit.
  var limit: UInt64 { bucket.limit }

  /// The number of a stream that begins.
  mutating func newNumber() -> StreamNumber {
    numbers += 1
    return StreamNumber(rawValue: numbers)
  }

  /// When the next piece of a stream that has one may go; nil if at once. Whoever has to wait has its turn
  /// kept, until it takes, rests or leaves.
  mutating func delay(of number: StreamNumber, now: MonotonicTime) -> MonotonicTime? {
    if limit == 0 { return nil }
    let free = bucket.delay(now: now)
    let own = placeOfNext(number)
    streams[number, default: Stream(next: place)].claim = Claim(
      place: own, lapses: (free ?? now).advanced(byNanoseconds: Self.patienceNanoseconds))
    if let free { return free }
    let lead = limit / 100
    for (other, stream) in streams where other != number {
      if let claim = stream.claim, claim.lapses > now, own > lead, claim.place < own - lead {
        return now.advanced(byNanoseconds: Self.lookNanoseconds)
      }
    }
    return nil
  }

  /// Counts bytes of a stream that go now.
  mutating func take(_ bytes: UInt64, by number: StreamNumber, now: MonotonicTime) {
    if limit == 0 { return }
    bucket.take(bytes, now: now)
    let own = placeOfNext(number)
    place = max(place, own)
    streams[number] = Stream(next: own + min(bytes, UInt64.max - own))
  }

  /// Corrects a count: `taken` bytes were counted, `used` went.
  mutating func settle(taken: UInt64, used: UInt64, by number: StreamNumber) {
    if limit == 0 { return }
    bucket.settle(taken: taken, used: used)
    func corrected(_ place: UInt64) -> UInt64 {
      used > taken
        ? place + min(used - taken, UInt64.max - place) : place - min(taken - used, place)
    }
    guard var stream = streams[number] else { return }
    stream.next = corrected(stream.next)
    if let claim = stream.claim { stream.claim?.place = corrected(claim.place) }
    streams[number] = stream
  }

  /// The stream has nothing to take for now; nobody waits for it.
  mutating func rest(_ number: StreamNumber) { streams[number]?.claim = nil }

  /// The stream is held, or over.
  mutating func leave(_ number: StreamNumber) { streams[number] = nil }

  /// Puts another limit in force at once.
  mutating func setLimit(_ limit: UInt64, now: MonotonicTime) {
    bucket.setLimit(limit, now: now)
  }

  /// The largest piece that keeps the promise of the limit and lets each stream come by in time, in whole
  /// clusters and at least one.
  func pieceBytes(upTo most: UInt64, clusterSize: UInt64) -> UInt64 {
    let turn = limit / 50 / UInt64(max(1, streams.count))
    return bucket.pieceBytes(
      upTo: limit == 0 ? most : min(most, turn), clusterSize: clusterSize)
  }

  private func placeOfNext(_ number: StreamNumber) -> UInt64 {
    guard let stream = streams[number] else { return place }
    if let claim = stream.claim { return claim.place }
    let madeUp = limit / (1_000_000_000 / UInt64(Throttle.burstNanoseconds))
    return max(stream.next, place - min(place, madeUp))
  }
}
