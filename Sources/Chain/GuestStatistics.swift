/// A kind of request that the guest makes of a disk.
package enum GuestOperation: Int, Sendable, CaseIterable {
  /// Bytes are read.
  case read
  /// Bytes, or zeroes, are written.
  case write
  /// What was written is made durable.
  case flush
  /// A range is given up.
  case unmap
}

/// What the guest has asked of a disk since it was mounted.
package struct GuestStatistics: Sendable, Equatable {
  /// What was counted of one kind of request.
  package struct Counts: Sendable, Equatable {
    /// Requests that were carried out.
    package var operations: UInt64
    /// The bytes that those were about.
    package var bytes: UInt64
    /// What all requests took, those that failed too.
    package var nanoseconds: UInt64
    /// Requests that failed.
    package var failures: UInt64

    /// What was counted, or nothing yet.
    package init(
      operations: UInt64 = 0, bytes: UInt64 = 0, nanoseconds: UInt64 = 0, failures: UInt64 = 0
    ) {
      self.operations = operations
      self.bytes = bytes
      self.nanoseconds = nanoseconds
      self.failures = failures
    }
  }

  /// By kind of request.
  package var counts: [GuestOperation: Counts] = [:]
  /// The end of the last byte that was written.
  package var highestWritten: UInt64 = 0
  /// How long ago the last request ended; nil if there was none.
  package var idleNanoseconds: UInt64?

  /// Nothing was asked yet.
  package init() {}

  /// What was counted of one kind of request.
  package subscript(operation: GuestOperation) -> Counts { counts[operation] ?? Counts() }
}
