/// What a cache of a disk takes, and how often it had no answer.
package struct CacheFigures: Sendable, Equatable {
  /// Bytes that it takes now.
  package var bytes: UInt64
  /// Bytes that it may take.
  package var limit: UInt64
  /// How often something was missing and had to be made.
  package var misses: UInt64
  /// How often something had to go to make room.
  package var evictions: UInt64

  /// Figures with all their parts.
  package init(bytes: UInt64, limit: UInt64, misses: UInt64, evictions: UInt64) {
    self.bytes = bytes
    self.limit = limit
    self.misses = misses
    self.evictions = evictions
  }
}
