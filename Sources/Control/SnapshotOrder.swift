internal import Chain

/// What QMP's blockdev-snapshot-sync is asked to do.
package struct SnapshotOrder: Sendable, Equatable {
  /// Where the overlay comes from. The raw values are those of QMP.
  package enum Mode: String, Sendable, CaseIterable {
    /// It is made.
    case absolutePaths = "absolute-paths"
    /// It is there already.
    case existing

    var inChain: SnapshotMode { self == .existing ? .existing : .absolutePaths }
  }

  /// The device, if it is named.
  package var device: String?
  /// The node on top of the device, if that is named.
  package var node: String?
  /// The path of the overlay.
  package var file: String
  /// What the node of the overlay is called from then on; nil leaves it to us.
  package var newNode: String?
  /// The format of the overlay.
  package var format = "qcow2"
  /// Where it comes from.
  package var mode = Mode.absolutePaths

  /// A snapshot into a new file, with QEMU's defaults.
  package init(device: String?, node: String? = nil, file: String) {
    self.device = device
    self.node = node
    self.file = file
  }
}
