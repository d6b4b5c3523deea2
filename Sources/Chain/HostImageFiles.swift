package import BlockIO
internal import HostSystem

/// The files of the host.
package struct HostImageFiles: ImageFiles {
  /// The host needs nothing.
  package init() {}

  /// Opens a file of the host.
  package func open(
    _ path: String, role: StorageRole, isReadOnly: Bool, isLocked: Bool
  ) throws(StorageError) -> any BlockStorage {
    try HostFile.open(
      path, access: isReadOnly ? .readOnly : .readWrite, locking: isLocked ? .qemu : .none,
      role: role)
  }

  /// Makes a file with the permissions of another one, whatever the process's mask is.
  package func create(
    _ path: String, like other: any BlockStorage, isLocked: Bool
  ) throws(StorageError) -> any BlockStorage {
    let mode = try call(other.path) { () throws(SystemError) in
      try SystemCall.permissions(of: other.path)
    }
    let file = try HostFile.create(path, mode: mode, locking: isLocked ? .qemu : .none)
    do {
      try call(path) { () throws(SystemError) in try SystemCall.setPermissions(mode, of: path) }
    } catch {
      file.close()
      try remove(path)
      throw error
    }
    return file
  }

  /// Takes the name of a file away, and makes that durable.
  package func remove(_ path: String) throws(StorageError) {
    try call(path) { () throws(SystemError) in try AtomicFile.remove(path: path) }
  }

  /// Flushes the directory that holds a file.
  package func flushName(of path: String) throws(StorageError) {
    try call(path) { () throws(SystemError) in
      try SystemCall.flushDirectory(PlacePath.directory(of: path))
    }
  }

  /// Device and inode, symbolic links followed.
  package func identity(of path: String) throws(StorageError) -> StorageIdentity {
    try call(path) { () throws(SystemError) in
      let status = try SystemCall.status(ofPath: path)
      return StorageIdentity(device: status.device, inode: status.inode)
    }
  }

  /// The path, or the path seen from the working directory.
  package func absolutePath(of path: String) throws(StorageError) -> String {
    if PlacePath.isAbsolute(path) { return path }
    return try call(path) { () throws(SystemError) in
      PlacePath.resolve(path, from: try SystemCall.workingDirectory())
    }
  }

  /// What realpath(3) says.
  package func canonicalPath(of path: String) throws(StorageError) -> String {
    try call(path) { () throws(SystemError) in try SystemCall.canonicalPath(of: path) }
  }

  private func call<Result>(
    _ path: String, _ body: () throws(SystemError) -> Result
  ) throws(StorageError) -> Result {
    do {
      return try body()
    } catch {
      throw .system(path: path, error)
    }
  }
}
