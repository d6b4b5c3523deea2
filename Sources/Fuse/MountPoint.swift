internal import CFuse
internal import Glibc
internal import HostSystem

/// A directory that a file system can be mounted on.
///
/// The path is absolute and without links, so that it stays good when the process changes its
/// directory. Between the check and the mount somebody may still change the directory; the mount
/// then covers what was put there, and does no harm.
package struct MountPoint: Sendable, Hashable {
  /// The absolute path.
  package let path: String

  /// The second half of the type in /proc/mounts, `fuse.chainfs`.
  package static let subtype = "chainfs"

  /// Checks that a path is an empty directory with no FUSE file system on it.
  package init(checking given: String) throws(MountPointError) {
    path = try Self.resolved(given)
    try Self.refuseMounted(path)
    try Self.refuseFilled(path)
  }

  private static func resolved(_ given: String) throws(MountPointError) -> String {
    // Alive: realpath allocates its result, which is copied and freed here.
    guard let absolute = unsafe realpath(given, nil) else {
      switch errno {
      case ENOENT: throw .missing(path: given)
      case ENOTDIR: throw .notADirectory(path: given)
      case ENOTCONN: throw .dead(path: given)
      case let number: throw .unreadable(path: given, SystemError(call: "realpath", number: number))
      }
    }
    defer { unsafe free(absolute) }
    return unsafe String(cString: absolute)
  }

  private static func refuseMounted(_ path: String) throws(MountPointError) {
    let mounted: MountTableEntry?
    do throws(SystemError) {
      mounted = try MountTable.entry(at: path)
    } catch {
      throw .unreadable(path: path, error)
    }
    guard let mounted, mounted.type == "fuse" || mounted.type.hasPrefix("fuse.") else { return }
    // realpath does not ask the root of a mount anything; stat does.
    var attributes = stat()
    // Alive: the struct is this local.
    if unsafe stat(path, &attributes) != 0, errno == ENOTCONN { throw .dead(path: path) }
    throw .alreadyMounted(path: path, source: mounted.source)
  }

  private static func refuseFilled(_ path: String) throws(MountPointError) {
    // Alive: opendir's stream is closed on each way out, and an entry is used before the next.
    guard let stream = unsafe opendir(path) else {
      if errno == ENOTDIR { throw .notADirectory(path: path) }
      throw .unreadable(path: path, SystemError(call: "opendir", number: errno))
    }
    defer { unsafe closedir(stream) }
    // More than the directory itself and its parent.
    for _ in 0..<2 { _ = unsafe readdir(stream) }
    if unsafe readdir(stream) != nil { throw .notEmpty(path: path) }
  }
}

/// open(2), with the pointer to the path kept in here.
func openPath(_ path: String, _ flags: Int32) -> Int32 {
  // Alive: the path's bytes are for the call only.
  unsafe open(path, flags)
}
