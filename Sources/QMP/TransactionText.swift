internal import Control

/// The arguments of `transaction`, and of the commands that may be its actions.
enum TransactionText {
  /// When the jobs of a transaction end. The raw values are QEMU's.
  private enum CompletionMode: String {
    /// Each by itself.
    case individual
    /// All, or none of them.
    case grouped
  }

  /// What `transaction` is asked to do.
  static func actions(_ arguments: inout Arguments) throws(QMPError) -> [TransactionAction] {
    var types: [TransactionAction.Kind] = []
    var actions: [TransactionAction] = []
    for (index, value) in try arguments.array("actions").enumerated() {
      let name = "actions[\(index)]"
      var list = Arguments([JSONText.Member(name, value)])
      var members = try list.object(name)
      let type: TransactionAction.Kind = try members.choice("type")
      var data = try members.object("data")
      actions.append(try action(type, &data))
      try members.finish()
      types.append(type)
    }
    var mode = CompletionMode.individual
    if var properties = try arguments.optionalObject("properties") {
      mode = try properties.choice("completion-mode", otherwise: mode)
      try properties.finish()
    }
    try arguments.finish()
    // Only what starts a job can be grouped with others.
    let groups: [TransactionAction.Kind] = [.abort, .backup, .driveBackup]
    if mode == .grouped, let type = types.first(where: { !groups.contains($0) }) {
      throw QMPError(
        "Action '\(type.rawValue)' does not support Transaction property completion-mode = grouped")
    }
    return actions
  }

  private static func action(
    _ type: TransactionAction.Kind, _ data: inout Arguments
  ) throws(QMPError) -> TransactionAction {
    switch type {
    case .snapshot: return .snapshot(try snapshot(&data))
    case .abort:
      try data.finish()
      return .abort
    case .bitmapAdd, .bitmapRemove, .bitmapClear, .bitmapEnable, .bitmapDisable, .bitmapMerge,
      .backup, .snapshotOfNodes, .internalSnapshot, .driveBackup:
      // What they take is nobody's business here.
      return .missing(type)
    }
  }

  /// What `blockdev-snapshot-sync` is asked to do.
  static func snapshot(_ arguments: inout Arguments) throws(QMPError) -> SnapshotOrder {
    let device = try arguments.optionalString("device")
    let node = try arguments.optionalString("node-name")
    var order = SnapshotOrder(
      device: device, node: node, file: try arguments.string("snapshot-file"))
    order.newNode = try arguments.optionalString("snapshot-node-name")
    order.format = try arguments.optionalString("format") ?? order.format
    order.mode = try arguments.choice("mode", otherwise: order.mode)
    try arguments.finish()
    return order
  }
}
