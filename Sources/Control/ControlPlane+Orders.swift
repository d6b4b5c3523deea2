internal import Chain
internal import HostSystem
internal import Jobs

// Streams as QMP and HMP ask for them: layers may be named by their nodes, and QEMU's order of looking at
// the arguments decides what is told of several faults.

extension ControlPlane {
  /// A layer with the device that it belongs to.
  struct Place {
    var device: Device
    var layer: LayerDescription
  }

  /// Starts a stream; a refusal changes nothing but the device's `error` file.
  package func stream(_ order: StreamOrder) throws(ControlError) {
    try order.checkNames()
    let place = try place(device: order.device, node: order.device)
    try telling(place.device) { () throws(ControlError) in
      var request = StreamRequest(
        base: try base(of: order, place), onError: order.policy, backingFile: order.backingFile,
        autoFinalize: order.autoFinalize, autoDismiss: order.autoDismiss)
      if request.base == nil, request.backingFile != nil {
        throw ControlError(.backingFileWithoutBase(device: place.device.disk.name))
      }
      // A node below the active image lends a job no name.
      request.id = order.jobID ?? (place.layer.index == 0 ? nil : "")
      do throws(JobError) {
        if order.speed >= 0 {
          request.speed = UInt64(order.speed)
          try start(request, place)
        } else {
          try startNone(request, place)
        }
      } catch { throw refusal(error, place, named: order.device) }
      if order.speed < 0 { throw .negativeSpeed(order.speed) }
    }
  }

  private func start(_ request: StreamRequest, _ place: Place) throws(JobError) {
    if place.layer.index == 0 {
      try place.device.jobs.start(request)
    } else {
      try place.device.inner.start(request, into: place.layer.id)
    }
  }

  /// QEMU looks at the speed last, when the job is there already: what else is wrong is told first, and
  /// whoever listens hears of a job that was created and is gone.
  private func startNone(_ request: StreamRequest, _ place: Place) throws(JobError) {
    if place.layer.index == 0 {
      try place.device.jobs.startNone(id: request.id)
    } else {
      try place.device.inner.startNone(request, into: place.layer.id)
    }
  }

  /// What is in use is told by the name that it was given in the order, as QEMU does it, and another layer
  /// by its node.
  private func refusal(_ error: JobError, _ place: Place, named name: String) -> ControlError {
    guard case .layerBusy(let layer, _, let device) = error, layer != place.layer.id else {
      return refusal(error, named: name)
    }
    var refusal = ControlError(error)
    refusal.rule = .busy(device: nodeNames.name(of: layer, device: device))
    return refusal
  }

  /// The same where only one layer can be in use.
  func refusal(_ error: JobError, named name: String) -> ControlError {
    var refusal = ControlError(error)
    switch error {
    case .busy, .layerBusy: refusal.rule = .busy(device: name)
    default: break
    }
    return refusal
  }

  /// The path of the layer that an order keeps, nil for none.
  private func base(of order: StreamOrder, _ place: Place) throws(ControlError) -> String? {
    let disk = place.device.disk
    let layers = try layers(place.device)
    if let name = order.base {
      do throws(ChainError) {
        let id = try disk.findLayer(named: name, below: place.layer.id)
        return layers.first { $0.id == id }?.path
      } catch {
        var refusal = ControlError(.chain(error, device: disk.name))
        if case .noSuchLayer = error { refusal.rule = .noSuchLayer(name) }
        throw refusal
      }
    }
    if let name = order.baseNode {
      let base = try node(name)
      guard base.device.disk.name == disk.name, base.layer.index > place.layer.index
      else {
        throw ControlError(
          kind: .notFound, sentence: "\(disk.name): \(name) is not below \(order.device)",
          rule: .notBelow(node: name, device: order.device))
      }
      return base.layer.path
    }
    if let name = order.bottom {
      let bottom = try node(name)
      guard bottom.device.disk.name == disk.name, bottom.layer.index >= place.layer.index else {
        throw ControlError(
          kind: .notFound, sentence: "\(disk.name): \(name) is not a layer from \(order.device) on",
          rule: .notInChain(node: name, device: order.device))
      }
      let next = bottom.layer.index + 1
      return next < layers.count ? layers[next].path : nil
    }
    return nil
  }

  private func node(_ name: String) throws(ControlError) -> Place {
    if let place = try findNode(name) { return place }
    throw noDevice("", node: name)
  }

  /// The active image of what is named, by either name.
  func active(device: String?, node: String?) throws(ControlError) -> Place {
    let place = try place(device: device, node: node)
    guard place.layer.index == 0 else {
      throw ControlError(
        kind: .unsupported,
        sentence: "\(place.device.disk.name): only the active image can be written, not a layer "
          + "below it; name the device")
    }
    return place
  }

  /// What is named, by either name.
  private func place(device: String?, node: String?) throws(ControlError) -> Place {
    if let device, let place = try findDevice(device) { return place }
    if let node, let place = try findNode(node) { return place }
    throw noDevice(device ?? "", node: node ?? "")
  }

  private func noDevice(_ device: String, node: String) -> ControlError {
    ControlError(
      kind: .notFound, sentence: "no device or node is called \(device.isEmpty ? node : device)",
      rule: .noDevice(device, node: node))
  }

  /// A device or a node has the name.
  func isTaken(_ name: String) throws(ControlError) -> Bool {
    if try findDevice(name) != nil { return true }
    return try findNode(name) != nil
  }

  /// The active image of a device. A node is found by this no more than a device as a node, as in QEMU.
  private func findDevice(_ name: String) throws(ControlError) -> Place? {
    for device in devices where device.disk.name == name {
      guard let top = try layers(device).first else { continue }
      return Place(device: device, layer: top)
    }
    return nil
  }

  private func findNode(_ name: String) throws(ControlError) -> Place? {
    for device in devices {
      for layer in try layers(device)
      where nodeNames.name(of: layer.id, device: device.disk.name) == name {
        return Place(device: device, layer: layer)
      }
    }
    return nil
  }
}
