package import Chain
package import Fuse

/// What is mounted, where, and how.
package struct MountConfiguration: Sendable {
  /// What the kernel keeps of the device files' bytes.
  package enum Caching: String, Sendable, CaseIterable {
    /// Nothing: every read and write comes to chainfs.
    case none
    /// What was read or written; writes come to chainfs at once.
    case readback
    /// The same, and writes are collected before they come.
    case writeback
  }

  /// The disks, in the order in which they are listed; their names are different.
  package var devices: [DeviceConfiguration]
  /// An empty directory.
  package var mountpoint: String
  /// Who may use the mount besides its owner.
  package var access = MountAccess.ownerOnly
  /// The owner of all files, nil for whoever mounts.
  package var userID: UInt32?
  /// The group of all files, nil for that of whoever mounts.
  package var groupID: UInt32?
  /// Permission bits that no file has.
  package var modeMask: UInt32 = 0
  /// What the kernel keeps.
  package var caching = Caching.readback
  /// Threads that serve requests at most, nil for a number that fits the machine.
  package var threads: Int?
  /// How requests come from the kernel.
  package var transport = RequestTransport.device
  /// Whether jobs of an earlier mount go on.
  package var resumesJobs = true
  /// The path of a socket that `.jobs/qmp` leads to, if there is one.
  package var socketPath: String?

  /// Mounts disks with the defaults of the mount options.
  package init(devices: [DeviceConfiguration], mountpoint: String) {
    self.devices = devices
    self.mountpoint = mountpoint
  }
}
