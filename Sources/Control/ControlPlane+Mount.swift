internal import Chain
internal import Jobs

// Commands to the whole mount. There is no `error` file of the mount: a refusal stands in that of every
// device that the command is about, and of all devices where the command does not say so.

extension ControlPlane {
  /// Carries out one write(2) to the control file `verb` of the mount.
  ///
  /// A refusal changes nothing but `error` files.
  package func execute(_ verb: MountVerb, bytes: [UInt8]) throws(ControlError) {
    var concerned = devices
    do throws(ControlError) {
      switch try MountCommand(verb, bytes: bytes) {
      case .speed(let limit): setSpeed(limit)
      case .snapshot(let paths, let format, let mode):
        let named = devices.filter { paths[$0.disk.name] != nil }
        if !named.isEmpty { concerned = named }
        for name in paths.keys.sorted() { _ = try device(name) }
        for device in named { device.error.set(nil) }
        do {
          try StreamJobs.snapshot(
            named.map { (jobs: $0.jobs, path: paths[$0.disk.name] ?? "") }, format: format,
            mode: mode)
        } catch { throw ControlError(error) }
      }
    } catch {
      for device in concerned { device.error.set(error.sentence) }
      throw error
    }
  }

  /// What a control file of the mount says when it is read.
  package func text(of verb: MountVerb) -> String {
    switch verb {
    case .snapshot: verb.usage + "\n"
    case .speed: "\(sharedLimit.bytesPerSecond)\n"
    }
  }

  private func setSpeed(_ limit: UInt64) {
    sharedLimit.set(limit)
    for device in devices {
      device.jobs.sharedLimitChanged()
      device.inner.sharedLimitChanged()
    }
  }
}
