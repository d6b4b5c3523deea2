internal import Chain
internal import Jobs

extension ControlPlane {
  /// The numbers of all devices now.
  var figures: MountFigures {
    let counts = events.counts
    return MountFigures(
      devices: devices.map(figures), sharedLimit: sharedLimit.bytesPerSecond, events: counts.events,
      lostEvents: counts.lost)
  }

  private func figures(_ device: Device) -> DeviceFigures {
    let disk = device.disk
    let chain: ChainFigures?
    // Who watches a mount wants the other numbers most of all when the host fails.
    do { chain = try disk.chainFigures() } catch { chain = nil }
    return DeviceFigures(
      name: disk.name, size: disk.virtualSize, isReadOnly: disk.isReadOnly,
      isHeld: device.hold.isStopped, statistics: disk.guestStatistics, load: disk.guestLoad,
      map: disk.mapFigures, inflated: disk.inflatedFigures, chain: chain, jobs: device.listed)
  }
}
