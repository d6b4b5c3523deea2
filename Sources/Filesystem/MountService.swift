package import Control

/// Something that lives as long as a mount and gives commands to its disks.
package protocol MountService: Sendable {
  /// Begins, once the disks are open and the jobs of an earlier mount go on, and before the mount is
  /// ready.
  func start(_ control: ControlPlane) throws(MountFailure)
  /// Ends: when it returns it gives no more commands. Called once, whether it was started or not.
  func stop()
}
