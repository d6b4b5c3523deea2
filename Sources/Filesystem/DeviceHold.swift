internal import Control
internal import Fuse
internal import HostSystem

/// The hold of a device's requests, as `stop` and `cont` command it.
struct DeviceHold: GuestHold {
  let device: String
  let requests: RequestHold
  /// The mount's requests come through io_uring.
  let isServedByRings: @Sendable () -> Bool

  var isStopped: Bool { requests.isHolding }

  func stop() throws(ControlError) {
    // A request keeps its place of a ring until it is answered, and one that brings `cont` needs a place.
    if isServedByRings() {
      throw ControlError(
        kind: .unsupported,
        sentence: "\(device): requests through io_uring cannot be stopped; mount without io_uring")
    }
    if !requests.stop() {
      throw ControlError(
        kind: .busy, sentence: "\(device): the filesystem is being unmounted, too late to stop it")
    }
  }

  func letGo() { requests.go() }
}
