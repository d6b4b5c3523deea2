internal import Chain
internal import HostSystem
internal import Jobs

extension ControlPlane {
  /// What QMP's query-block returns: each device with its active image, and what is below that.
  package func blockDevices() throws(ControlError) -> JSONText {
    var entries: [JSONText] = []
    for device in devices {
      let layers = try layers(device)
      let ioStatus = device.jobs.current?.ioStatus ?? .ok
      entries.append(
        .object([
          .init("device", .string(device.disk.name)), .init("type", .string("unknown")),
          .init("removable", .bool(false)), .init("locked", .bool(false)),
          .init("inserted", node(0, of: layers, device, .nested)),
          .init("io-status", .string(ioStatus.rawValue)),
        ]))
    }
    return .array(entries)
  }

  /// What QMP's query-named-block-nodes returns: every layer of every device, active images first.
  package func blockNodes(_ images: NodeJSON.Images) throws(ControlError) -> JSONText {
    var entries: [JSONText] = []
    for device in devices {
      let layers = try layers(device)
      for index in layers.indices { entries.append(node(index, of: layers, device, images)) }
    }
    return .array(entries)
  }

  private func node(
    _ index: Int, of layers: [LayerDescription], _ device: Device, _ images: NodeJSON.Images
  ) -> JSONText {
    NodeJSON.node(
      index, of: layers, name: nodeNames.name(of: layers[index].id, device: device.disk.name),
      isReadOnly: isReadOnly(layers[index], device), disk: device.disk, images)
  }

  /// A layer below the active image is written only while a stream copies into it.
  func isReadOnly(_ layer: LayerDescription, _ device: Device) -> Bool {
    if device.disk.isReadOnly { return true }
    return layer.index > 0 && !device.inner.targets.contains(layer.id)
  }
}
