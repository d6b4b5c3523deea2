package import HostSystem

extension Disk {
  /// Opens a disk: its active image, and every layer below it, under the open policy.
  ///
  /// Nothing is changed on the host before everything could be opened. The disk's background thread
  /// flushes once a second until `close`; each time that it fails, it says so to `onFlushFailure`.
  package static func open(
    _ configuration: DeviceConfiguration, timeSource: any TimeSource = SystemTimeSource(),
    files: any ImageFiles = HostImageFiles(),
    onFlushFailure: @escaping @Sendable (ChainError) -> Void = { _ in }
  ) throws(ChainError) -> Disk {
    let layers = try ChainOpener(configuration: configuration, files: files).open()
    let disk = Disk(
      layers: layers, configuration: configuration, timeSource: timeSource, files: files)
    if disk.isReadOnly { return disk }
    do {
      // The thread holds the disk weakly: a disk that nobody closed still goes away.
      try disk.flusher.start(name: "flush-\(disk.name)", timeSource: timeSource) { [weak disk] in
        disk?.flushInBackground(onFlushFailure)
      }
    } catch {
      try disk.close()
      throw .system(error)
    }
    return disk
  }
}
