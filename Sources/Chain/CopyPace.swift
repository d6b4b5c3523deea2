internal import HostSystem

// A guest's request is served by threads that sleep until it comes. Where one of them wakes on a processor
// that a copying thread has, the kernel lets that one go on for the rest of its slice, some milliseconds,
// unless it sleeps or offers the processor itself. So beside a guest at work the steps between two
// offers are as short as the guest's own requests.

/// How a stream shares the host with the guest of its disk.
package enum CopyPace: Sendable, Equatable {
  /// Nobody waits: few large steps.
  case full
  /// The guest is at work: small steps, and after each of them whoever waits for the processor goes first.
  case gentle

  /// Most bytes that are read and written at once.
  var stepBytes: UInt64 {
    switch self {
    case .full: 1 << 20
    case .gentle: 64 << 10
    }
  }

  /// Called between two steps.
  func giveWay() {
    if self == .gentle { Worker.offerProcessor() }
  }
}
