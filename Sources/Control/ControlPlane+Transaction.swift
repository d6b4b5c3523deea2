internal import Chain
internal import HostSystem
internal import Jobs

// Snapshots as QMP and HMP ask for them, of one device or of several at one moment.
//
// QEMU carries out a transaction action by action, and takes back what it has done when one is refused.
// Here all actions are looked at first, in their order, so that the first that QEMU would refuse is the
// one that is told; then the snapshots are taken together.

extension ControlPlane {
  /// Takes a snapshot; a refusal changes nothing but the device's `error` file.
  package func snapshot(_ order: SnapshotOrder) throws(ControlError) {
    try carryOut([.snapshot(order)])
  }

  /// Carries out all actions or none; a refusal changes nothing but the devices' `error` files.
  package func carryOut(_ actions: [TransactionAction]) throws(ControlError) {
    var devices: [Device] = []
    // The names of new nodes are this transaction's until they are given or it is refused.
    var names: [String] = []
    defer { nodeNames.release(names) }
    do throws(ControlError) {
      var steps: [(device: Device, order: SnapshotOrder)] = []
      for action in actions {
        let order = try order(of: action)
        let device = try active(device: order.device, node: order.node).device
        device.error.set(nil)
        devices.append(device)
        try check(order, device, beside: steps.map(\.device), reserving: &names)
        steps.append((device, order))
      }
      try take(steps)
    } catch {
      for device in devices { device.error.set(error.sentence) }
      throw error
    }
  }

  private func order(of action: TransactionAction) throws(ControlError) -> SnapshotOrder {
    switch action {
    case .snapshot(let order): return order
    case .abort:
      throw ControlError(
        kind: .invalid, sentence: "the transaction was to be aborted", rule: .aborted)
    case .missing(let kind):
      throw ControlError(
        kind: .unsupported,
        sentence: "a transaction cannot do \(kind.rawValue) here, only blockdev-snapshot-sync")
    }
  }

  private func check(
    _ order: SnapshotOrder, _ device: Device, beside others: [Device],
    reserving names: inout [String]
  ) throws(ControlError) {
    let name = device.disk.name
    try checkNewNode(of: order, reserving: &names)
    if order.format != "qcow2" {
      throw ControlError(
        kind: .unsupported,
        sentence: "\(name): an overlay is qcow2, it cannot be \(order.format)",
        rule: .badFormat(order.format))
    }
    if others.contains(where: { $0.disk.name == name }) {
      throw .invalid("\(name): two snapshots of one device need two transactions")
    }
  }

  private func checkNewNode(
    of order: SnapshotOrder, reserving names: inout [String]
  ) throws(ControlError) {
    guard let name = order.newNode else {
      if order.node == nil { return }
      throw ControlError(
        kind: .invalid, sentence: "name the new node too, with snapshot-node-name",
        rule: .nodeNameMissing)
    }
    guard NodeNames.isWellFormed(name) else {
      throw ControlError(
        kind: .invalid, sentence: "no node can be called \(name)", rule: .badNodeName(name))
    }
    // Reserved first, then looked for: who had it reserved before has given it by now, or never will.
    guard nodeNames.reserve(name) else { throw nodeNameInUse(name) }
    names.append(name)
    if try isTaken(name) { throw nodeNameInUse(name) }
  }

  private func nodeNameInUse(_ name: String) -> ControlError {
    ControlError(
      kind: .exists, sentence: "a device or a node is called \(name) already",
      rule: .nodeNameInUse(name))
  }

  private func take(
    _ steps: [(device: Device, order: SnapshotOrder)]
  ) throws(ControlError) {
    if steps.isEmpty { return }
    do throws(JobError) {
      try StreamJobs.snapshot(
        each: steps.map { ($0.device.jobs, $0.order.file, $0.order.mode.inChain) }
      ) { () throws(ChainError) in
        // No other snapshot comes between.
        for (device, order) in steps {
          if let name = order.newNode, let top = try device.disk.layers().first {
            nodeNames.set(name, of: top.id, device: device.disk.name)
          }
        }
      }
    } catch { throw refusal(error, of: steps) }
  }

  private func refusal(
    _ error: JobError, of steps: [(device: Device, order: SnapshotOrder)]
  ) -> ControlError {
    var refusal = ControlError(error)
    switch error {
    case .busy(let name):
      if let order = steps.first(where: { $0.device.disk.name == name })?.order {
        return self.refusal(error, named: order.device ?? order.node ?? name)
      }
    case .chain(let cause, _):
      if let (path, reason) = cause.unopened,
        let order = steps.map(\.order).first(where: { $0.file == path })
      {
        refusal.rule = .noOverlay(order.mode, path: path, reason: reason)
      }
    default: break
    }
    return refusal
  }
}
