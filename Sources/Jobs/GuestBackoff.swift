internal import Chain
internal import HostSystem

// How a job stays out of the guest's way.
//
//     guest silent for 50 ms     all threads copy, in large pieces, without a break
//     guest at work              one piece at a time, a smaller one in small steps, and a break after it
//
// Storage that moves a piece in two milliseconds has room for both. What a piece takes longer is time that
// the guest may have had to wait, and the break is three times that, so that the guest has at least three
// quarters of a slow disk to itself. It grows with the guest's latency: more than twice of what is usual
// doubles what is added, up to 50 ms, everything else halves it. What is usual is the lowest latency seen,
// let up slowly, so that a guest whose own load changes is measured anew. The break is bounded because a
// job that never ends is no use either.

/// How busy the guest is, as the disk counts it.
struct GuestActivity: Sendable {
  var inFlight: Int
  var completed: UInt64
  var latencyNanoseconds: UInt64
}

/// Decides how hard a job may work beside the guest.
struct GuestBackoff: Sendable {
  static let silenceNanoseconds: UInt64 = 50_000_000
  static let longestBreak: Int64 = 50_000_000
  /// A piece that takes no longer is no burden.
  static let lightNanoseconds: UInt64 = 2_000_000
  private static let adjustNanoseconds: UInt64 = 5_000_000

  private var lastActive: MonotonicTime?
  private var lastAdjusted: MonotonicTime?
  private var completed: UInt64?
  private var usual: UInt64 = 0
  private(set) var breakNanoseconds: Int64 = 0
  private var resting: MonotonicTime?

  /// The guest was at work a moment ago.
  private(set) var isGuestActive = false

  /// Most pieces at a time, of `threads` that could copy.
  func mostInFlight(threads: Int) -> Int { isGuestActive ? 1 : threads }

  /// Most bytes of a piece.
  var pieceBytes: UInt64 { isGuestActive ? 1 << 20 : 8 << 20 }

  /// How a piece is moved.
  var pace: CopyPace { isGuestActive ? .gentle : .full }

  /// When the break is over; nil if there is none.
  func delay(now: MonotonicTime) -> MonotonicTime? {
    guard isGuestActive, let resting, resting > now else { return nil }
    return resting
  }

  /// Looks at the guest.
  mutating func observe(_ guest: GuestActivity, now: MonotonicTime) {
    let moved = completed.map { $0 != guest.completed } ?? false
    completed = guest.completed
    if moved || guest.inFlight > 0 { lastActive = now }
    isGuestActive = lastActive.map { now.nanoseconds(since: $0) < Self.silenceNanoseconds } ?? false
    if !isGuestActive {
      breakNanoseconds = 0
      return
    }
    if let lastAdjusted, now.nanoseconds(since: lastAdjusted) < Self.adjustNanoseconds { return }
    guard moved else { return }
    lastAdjusted = now
    let latency = guest.latencyNanoseconds
    if usual == 0 || latency < usual {
      usual = latency
    } else {
      usual += (latency - usual) / 256
    }
    // Less than this is noise of the scheduler, not the disk's queue.
    if latency > usual + max(usual, 50_000) {
      breakNanoseconds = min(max(breakNanoseconds * 2, 1_000_000), Self.longestBreak)
    } else {
      breakNanoseconds /= 2
    }
  }

  /// A piece was copied: the break begins.
  mutating func pieceEnded(started: MonotonicTime, now: MonotonicTime) {
    let took = min(now.nanoseconds(since: started), UInt64(Self.longestBreak))
    let fair = 3 * Int64(took - min(took, Self.lightNanoseconds))
    resting = now.advanced(byNanoseconds: min(fair + breakNanoseconds, Self.longestBreak))
  }
}
