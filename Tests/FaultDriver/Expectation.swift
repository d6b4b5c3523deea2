import Foundation

/// What a disk may hold: what was acknowledged, and what nobody can be sure of.
struct Expectation {
  /// Bytes that an operation put on the disk.
  struct Change {
    var offset: Int
    var bytes: [UInt8]

    func byte(at place: Int) -> UInt8? {
      offset <= place && place < offset + bytes.count ? bytes[place - offset] : nil
    }
  }

  private(set) var now: [UInt8]
  private var durable: [UInt8]
  /// Acknowledged since the last flush, or after a failure in between.
  private var since: [Change] = []
  /// Told as failed: each byte may have changed or not.
  private var uncertain: [Change] = []

  init(bytes: [UInt8]) {
    now = bytes
    durable = bytes
  }

  mutating func acknowledge(_ change: Change) {
    now.replaceSubrange(change.offset..<change.offset + change.bytes.count, with: change.bytes)
    since.append(change)
  }

  mutating func doubt(_ change: Change) {
    uncertain.append(change)
    since.append(change)
  }

  /// A change that was in doubt was made again, and acknowledged.
  mutating func settle() {
    if !uncertain.isEmpty { uncertain.removeLast() }
  }

  mutating func flushed() {
    durable = now
    since = uncertain
  }

  /// What was found after a crash, and is right, is what there is from then on.
  mutating func found(_ bytes: [UInt8]) { self = Expectation(bytes: bytes) }

  mutating func grown(to size: Int) {
    let more = [UInt8](repeating: 0, count: max(0, size - now.count))
    now += more
    durable += more
  }

  /// The first place where the disk holds what it must not.
  ///
  /// After a crash everything since the last flush may be there or not.
  func firstFault(in found: [UInt8], afterCrash: Bool) -> Int? {
    if found == now { return nil }
    let wanted = afterCrash ? durable : now
    let changes = afterCrash ? since : uncertain
    for place in 0..<max(found.count, wanted.count) {
      guard place < found.count, place < wanted.count else {
        // A disk whose growth is in doubt has either size.
        return afterCrash ? nil : place
      }
      if found[place] == wanted[place] { continue }
      if !changes.contains(where: { $0.byte(at: place) == found[place] }) { return place }
    }
    return nil
  }
}
