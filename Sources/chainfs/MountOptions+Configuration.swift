internal import Chain
internal import Filesystem
internal import Fuse

extension MountOptions {
  /// What the options mean for these devices; what was not said keeps the modules' defaults.
  func configuration(
    devices: [DeviceArgument], mountpoint: String
  ) throws -> MountConfiguration {
    var disks = devices.map { configuration(of: $0) }
    if let secret = try Secrets.secret(from: secretPath, for: disks) {
      for index in disks.indices { disks[index].encryptedImages = .opened(with: secret) }
    }
    var mount = MountConfiguration(devices: disks, mountpoint: mountpoint)
    if allowsOther { mount.access = .everybody }
    if allowsRoot { mount.access = .root }
    mount.userID = userID
    mount.groupID = groupID
    mount.modeMask = modeMask
    if let cache { mount.caching = cache }
    mount.threads = threads
    if usesRings { mount.transport = .ringsIfOffered }
    mount.resumesJobs = resumesJobs
    mount.socketPath = qmpPath
    return mount
  }

  private func configuration(of device: DeviceArgument) -> DeviceConfiguration {
    var disk = DeviceConfiguration(
      name: device.name,
      image: device.format == .raw ? .raw(path: device.path) : .qcow2(path: device.path))
    disk.isReadOnly = isReadOnly
    disk.locking = locksImages ? .qemu : .none
    if let mapCacheBytes { disk.mapCacheBytes = Int(clamping: mapCacheBytes) }
    disk.backingRoot = backingRoot
    disk.discard = discard
    disk.isGrowable = isGrowable
    disk.detectZeroes = detectZeroes
    return disk
  }
}
