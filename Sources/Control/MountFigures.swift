/// The numbers of a mount at one moment.
struct MountFigures: Sendable {
  var devices: [DeviceFigures]
  /// The limit that all streams share, 0 for none.
  var sharedLimit: UInt64
  /// Events so far.
  var events: UInt64
  /// Of those, what readers came too late for.
  var lostEvents: UInt64
}
