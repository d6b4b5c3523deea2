// Calls on files by their names: where a name leads, who may use it, and when it is durable.

internal import CHost
internal import Glibc

extension SystemCall {
  /// The path of a file that is there, from the root, without symbolic links, `.` and `..`.
  package static func canonicalPath(of path: String) throws(SystemError) -> String {
    try checkPath(path, for: "realpath")
    // Owned here: realpath allocates, and it is freed below.
    let result = try unsafe retryingUntilThere("realpath") { unsafe realpath(path, nil) }
    defer { unsafe free(result) }
    // Alive until the defer; realpath ends it with a NUL.
    return unsafe String(cString: result)
  }

  /// The directory that relative paths start from.
  package static func workingDirectory() throws(SystemError) -> String {
    // Owned here: getcwd allocates with a nil buffer, and it is freed below.
    let result = try unsafe retryingUntilThere("getcwd") { unsafe getcwd(nil, 0) }
    defer { unsafe free(result) }
    // Alive until the defer; getcwd ends it with a NUL.
    return unsafe String(cString: result)
  }

  /// The path of an open file as the kernel has it now: from the root, without symbolic links.
  ///
  /// One that was unlinked keeps its last path, with ` (deleted)` behind it.
  package static func path(of descriptor: Int32) throws(SystemError) -> String {
    let link = "/proc/self/fd/\(descriptor)"
    var bytes = [CChar](repeating: 0, count: Int(PATH_MAX))
    // Alive: the link's bytes and the array are this call's only; the array's size is passed along.
    let count = try retrying("readlink") { unsafe readlink(link, &bytes, bytes.count) }
    guard count < bytes.count else { throw SystemError(call: "readlink", number: ENAMETOOLONG) }
    return String(decoding: bytes.prefix(count).map { UInt8(bitPattern: $0) }, as: UTF8.self)
  }

  /// Sets the permission bits of an open file.
  package static func setPermissions(
    _ permissions: UInt32, of descriptor: Int32
  ) throws(SystemError) {
    _ = try retrying("fchmod") { fchmod(descriptor, permissions) }
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
