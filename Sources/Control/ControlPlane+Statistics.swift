internal import Chain

extension ControlPlane {
  /// What QMP's query-blockstats returns: what the guest has asked of each device.
  package func deviceStatistics() throws(ControlError) -> JSONText {
    var entries: [JSONText] = []
    for device in devices {
      let layers = try named(device)
      entries.append(
        StatisticsJSON.device(device.disk.name, device.disk.guestStatistics, layers))
    }
    return .array(entries)
  }

  /// The same of every node, active images first; none tells of what lies below it.
  package func nodeStatistics() throws(ControlError) -> JSONText {
    var entries: [JSONText] = []
    for device in devices {
      let reach = device.disk.guestStatistics.highestWritten
      for named in try named(device) {
        entries.append(
          StatisticsJSON.node(named, highestWritten: named.layer.index == 0 ? reach : 0))
      }
    }
    return .array(entries)
  }

  private func named(_ device: Device) throws(ControlError) -> [StatisticsJSON.Named] {
    try layers(device).map { layer in
      (nodeNames.name(of: layer.id, device: device.disk.name), layer)
    }
  }
}
