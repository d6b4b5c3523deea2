internal import Synchronization

/// Counts how often a layer's tables were read from the host again because those in memory were not to be
/// trusted: what maps know from before is void then.
///
/// A disk, its views and the inner disks of its layers have one in common, for each keeps a map of its own.
final class TableEra: Sendable {
  // Relaxed: it changes under the exclusive side of the disk's gate, and is looked at under the shared one.
  private let number = Atomic<UInt64>(0)

  var now: UInt64 { number.load(ordering: .relaxed) }

  func end() { number.add(1, ordering: .relaxed) }
}
