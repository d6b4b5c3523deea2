package import HostSystem

extension Disk {
  /// Opens a disk: its active image, and every layer below it, under the open policy.
  ///
  /// Nothing is changed on the host before everything could be opened. The disk's background thread
  /// flushes once a second until `close`.
  package static func open(
    _ configuration: DeviceConfiguration, timeSource: any TimeSource = SystemTimeSource(),
    files: any ImageFiles = HostImageFiles()
  ) throws(ChainError) -> Disk {
    let layers = try ChainOpener(configuration: configuration, files: files).open()
    let disk = Disk(
      layers: layers, configuration: configuration, timeSource: timeSource, files: files)
    if disk.isReadOnly { return disk }
    do {
      // The thread holds the disk weakly: a disk that nobody closed still goes away.
      try disk.flusher.start(name: "flush-\(disk.name)", timeSource: timeSource) { [weak disk] in
        disk?.flushInBackground()
      }
    } catch {
      try disk.close()
      throw .system(error)
    }
    return disk
  }
}
