internal import HostSystem
internal import Jobs

/// What QMP's block-stream is asked to do.
package struct StreamOrder: Sendable, Equatable {
  /// What happens on errors. The raw values are those of QMP.
  package enum OnError: String, Sendable, CaseIterable {
    /// The job fails.
    case report
    /// It goes on to the end, and fails then.
    case ignore
    /// It is held.
    case stop
    /// It is held where space is missing, and fails else.
    case enospc
    /// The same.
    case auto
  }

  /// The device, or the node on top of it.
  package var device: String
  /// What the job is called; nil is the name of the device.
  package var jobID: String?
  /// The layer that is kept, by a name of its file.
  package var base: String?
  /// The layer that is kept, by its node.
  package var baseNode: String?
  /// The lowest layer that is not kept, by its node.
  package var bottom: String?
  /// The string for the header.
  package var backingFile: String?
  /// Bytes a second, 0 for no limit.
  package var speed: Int64 = 0
  /// What happens on errors.
  package var onError = OnError.report
  /// The header is written once everything is copied.
  package var autoFinalize = true
  /// The job is gone when it is over.
  package var autoDismiss = true

  /// A stream of the whole chain, with QEMU's defaults.
  package init(device: String) {
    self.device = device
  }

  /// Refuses more than one name for the layer that is kept.
  func checkNames() throws(ControlError) {
    let pairs = [
      ("base", base, "base-node", baseNode), ("base", base, "bottom", bottom),
      ("bottom", bottom, "base-node", baseNode),
    ]
    for (name, value, otherName, other) in pairs where value != nil && other != nil {
      throw ControlError(
        kind: .invalid, sentence: "\(name) and \(otherName) exclude each other",
        rule: .exclusive(name, otherName))
    }
  }

  var policy: ErrorPolicy {
    switch onError {
    case .report: .report
    case .ignore: .ignore
    case .stop: .stop
    case .enospc, .auto: .enospc
    }
  }
}
