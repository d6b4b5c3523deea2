internal import Chain

extension ControlPlane {
  /// What QMP's query-blockstats returns: what the guest has asked of each device.
  package func deviceStatistics() throws(ControlError) -> JSONText {
    var entries: [JSONText] = []
    for device in devices {
      guard let active = try layers(device).first else { continue }
      let name = device.disk.name
      let node = nodeNames.name(of: active.id, device: name)
      entries.append(StatisticsJSON.device(name, node: node, device.disk.guestStatistics))
    }
    return .array(entries)
  }

  /// The same of every node, active images first.
  package func nodeStatistics() throws(ControlError) -> JSONText {
    var entries: [JSONText] = []
    for device in devices {
      let reach = device.disk.guestStatistics.highestWritten
      for layer in try layers(device) {
        let node = nodeNames.name(of: layer.id, device: device.disk.name)
        entries.append(StatisticsJSON.node(node, highestWritten: layer.index == 0 ? reach : 0))
      }
    }
    return .array(entries)
  }
}
