import Control
import HostSystem

/// A hold that notes what it was told, and may refuse to stop.
final class CountingHold: GuestHold {
  private let state = Monitor<(calls: [String], refusal: ControlError?)>(([], nil))

  var calls: [String] { state.withLock { $0.calls } }

  var refusal: ControlError? {
    get { state.withLock { $0.refusal } }
    set { state.withLock { $0.refusal = newValue } }
  }

  var isStopped: Bool { calls.last == "stop" }

  func stop() throws(ControlError) {
    if let refusal { throw refusal }
    state.withLock { $0.calls.append("stop") }
  }

  func letGo() { state.withLock { $0.calls.append("cont") } }
}
