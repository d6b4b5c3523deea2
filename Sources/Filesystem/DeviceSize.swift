internal import Control
internal import Fuse
internal import HostSystem

/// The size of a device's file, as `block_resize` changes it.
struct DeviceSize: GuestSize {
  let device: String
  let inode: InodeNumber
  let caching: MountConfiguration.Caching
  /// The session that serves the file, once there is one.
  let session: @Sendable () -> FuseSession?

  func checkChange() throws(ControlError) {
    // The kernel believes no size but one that was set through it.
    if caching == .writeback {
      throw ControlError(
        kind: .unsupported,
        sentence: "\(device): with cache=writeback only the file itself can be made larger: "
          + "truncate -s SIZE MOUNTPOINT/\(device)")
    }
  }

  func tell() { session()?.forgetAttributes(of: inode) }
}
