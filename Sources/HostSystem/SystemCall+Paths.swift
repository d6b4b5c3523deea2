// Calls on files by their names: where a name leads, who may use it, and when it is durable.

internal import CHost
internal import Glibc

extension SystemCall {
  /// The permission bits of a file, symbolic links followed.
  package static func permissions(of path: String) throws(SystemError) -> UInt32 {
    try checkPath(path, for: "stat")
    var status = stat()
    // Alive: path and status are this call's only.
    _ = try retrying("stat") { unsafe stat(path, &status) }
    return UInt32(status.st_mode & 0o777)
  }

  /// The path of a file that is there, from the root, without symbolic links, `.` and `..`.
  package static func canonicalPath(of path: String) throws(SystemError) -> String {
    try checkPath(path, for: "realpath")
    // Owned here: realpath allocates, and it is freed below.
    guard let result = unsafe realpath(path, nil) else {
      throw SystemError(call: "realpath", number: errno)
    }
    defer { unsafe free(result) }
    // Alive until the defer; realpath ends it with a NUL.
    return unsafe String(cString: result)
  }

  /// The directory that relative paths start from.
  package static func workingDirectory() throws(SystemError) -> String {
    // Owned here: getcwd allocates with a nil buffer, and it is freed below.
    guard let result = unsafe getcwd(nil, 0) else {
      throw SystemError(call: "getcwd", number: errno)
    }
    defer { unsafe free(result) }
    // Alive until the defer; getcwd ends it with a NUL.
    return unsafe String(cString: result)
  }

  /// Sets the permission bits of a file.
  package static func setPermissions(
    _ permissions: UInt32, of path: String
  ) throws(SystemError) {
    try checkPath(path, for: "chmod")
    // Alive: the path is this call's only.
    _ = try retrying("chmod") { unsafe chmod(path, permissions) }
  }

  /// Makes names in a directory durable, those that came and those that went.
  package static func flushDirectory(_ path: String) throws(SystemError) {
    try checkPath(path, for: "open")
    // Alive: the path is this call's only.
    let raw = try retrying("open") {
      unsafe chainfs_open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0)
    }
    let directory = OwnedDescriptor(taking: raw)
    _ = try retrying("fsync") { fsync(raw) }
    try directory.close()
  }

  /// The bytes that may still be written to the file system which holds a file.
  package static func freeBytes(beside path: String) throws(SystemError) -> UInt64 {
    try checkPath(path, for: "statvfs")
    var values = statvfs()
    // Alive: path and values are this call's only.
    _ = try retrying("statvfs") { unsafe statvfs(path, &values) }
    return UInt64(values.f_bavail).multipliedReportingOverflow(by: UInt64(values.f_frsize))
      .partialValue
  }
}
