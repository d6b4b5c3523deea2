internal import Chain
internal import Jobs

// `info block` of the human monitor, to QEMU's last blank line. It lists devices, each with the name of its
// node, and nodes where they are asked for or where no device goes by the name. An entry that is not the
// first of its list begins with an empty line, also when it is the only one that is told.
//
// The control files tell the same of devices without the names of nodes, of which they know nothing.

extension ControlPlane {
  /// What `info block` says; nothing where nobody has the name.
  package func blockInfo(_ question: BlockQuestion) throws(ControlError) -> String {
    var text = ""
    if !question.ofNodes {
      for (index, device) in devices.enumerated() {
        let name = device.disk.name
        if let wanted = question.name, wanted != name { continue }
        let layers = try layers(device)
        guard let active = layers.first else { continue }
        let node = nodeNames.name(of: active.id, device: name)
        if index > 0 { text += "\n" }
        text += info(device, title: "\(name) (\(node))", layers: layers)
        if question.isVerbose { text += try images(layers[...], device) }
      }
      if question.name == nil || !text.isEmpty { return text }
    }
    var isFirst = true
    for device in devices {
      let layers = try layers(device)
      for layer in layers {
        defer { isFirst = false }
        let node = nodeNames.name(of: layer.id, device: device.disk.name)
        if let wanted = question.name, wanted != node { continue }
        if !isFirst { text += "\n" }
        let isActive = layer.index == 0
        let below = layers[layer.index...]
        text += BlockText.info(
          device: node, layers: below, isReadOnly: isReadOnly(layer, device),
          detectZeroes: isActive ? device.disk.configuration.detectZeroes : .off, ioStatus: .ok)
        if question.isVerbose { text += try images(below, device) }
      }
    }
    return text
  }

  /// What the headers of layers say.
  private func images(
    _ layers: ArraySlice<LayerDescription>, _ device: Device
  ) throws(ControlError) -> String {
    var text = "\nImages:\n"
    for (layer, next) in zip(layers, layers.dropFirst().map(Optional.some) + [nil]) {
      do throws(ChainError) {
        // One that has left the chain meanwhile says nothing.
        guard let header = try device.disk.header(of: layer.id) else { continue }
        text += ImageText.image(layer, header, backingPath: next?.path)
      } catch { throw ControlError(error) }
    }
    return text
  }
}
