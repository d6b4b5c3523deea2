internal import Chain
internal import Jobs

/// The numbers of a device at one moment.
struct DeviceFigures: Sendable {
  /// The device's name.
  var name: String
  /// The size of the disk in bytes.
  var size: UInt64
  var isReadOnly: Bool
  /// Its requests wait.
  var isHeld: Bool
  var statistics: GuestStatistics
  var load: GuestLoadSample
  var map: CacheFigures
  var inflated: CacheFigures
  /// Nil where the host does not say.
  var chain: ChainFigures?
  /// All that are listed.
  var jobs: [JobStatus]
}
