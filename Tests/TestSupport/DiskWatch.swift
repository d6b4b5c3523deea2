package import BlockIO
internal import HostSystem

/// A call that changed a simulated file or its directory.
package struct DiskChange: Sendable {
  /// What the call was.
  package enum Kind: Sendable {
    case write(WriteIntent)
    case zero
    case discard
    case resize
    case flush
    /// A name came, went or moved.
    case name
    /// The names of a directory became durable.
    case flushNames
  }

  /// The file, or the directory.
  package var path: String
  /// What the call was.
  package var kind: Kind
  /// The first byte that it touched.
  package var offset: UInt64
  /// How many.
  package var length: UInt64
}

/// Hears of every change of the disks that it is given to.
package final class DiskWatch: Sendable {
  private let body = Monitor<(@Sendable (DiskChange) -> Void)?>(nil)

  /// Hears nothing yet.
  package init() {}

  /// Calls `body` after each change from now on, on the thread that made it; nil ends that.
  package func set(_ body: (@Sendable (DiskChange) -> Void)?) { self.body.withLock { $0 = body } }

  func tell(_ change: DiskChange) { body.withLock { $0 }?(change) }
}
