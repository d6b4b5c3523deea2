package import BlockIO
internal import HostSystem

/// The files of the host.
package struct HostImageFiles: ImageFiles {
  private let pageCache: HostFile.PageCache
  private let ownMount: OwnMount?

  /// The host needs nothing. Files that are kept in those of `ownMount` are refused.
  package init(of ownMount: OwnMount? = nil) {
    self.init(pageCache: .used, ownMount)
  }

  private init(pageCache: HostFile.PageCache, _ ownMount: OwnMount?) {
    self.pageCache = pageCache
    self.ownMount = ownMount
  }

  /// The same files, past the host's page cache wherever that is possible.
  package var pastPageCache: HostImageFiles { HostImageFiles(pageCache: .avoided, ownMount) }

  /// Opens a file of the host.
  package func open(
    _ path: String, role: StorageRole, isReadOnly: Bool, isLocked: Bool
  ) throws(StorageError) -> any BlockStorage {
    try ownMount?.check(path)
    return try HostFile.open(
      path, access: isReadOnly ? .readOnly : .readWrite, locking: isLocked ? .qemu : .none,
      role: role, pageCache: pageCache)
  }

  /// Makes a file with the permissions of another one, whatever the process's mask is. Both are asked
  /// by what is open: another file at one of the paths by now is none of ours.
  package func create(
    _ path: String, like other: any BlockStorage, isLocked: Bool
  ) throws(StorageError) -> any BlockStorage {
    try ownMount?.check(path, besides: PlacePath.directory(of: path))
    let file = try HostFile.create(
      path, locking: isLocked ? .qemu : .none, pageCache: pageCache)
    do {
      if let other = other as? HostFile { try file.setPermissions(try other.permissions()) }
    } catch {
      file.close()
      try remove(path)
      throw error
    }
    return file
  }

  /// Opens the very file that is open already, whatever its path leads to by now.
  package func writer(over layer: any BlockStorage) throws(StorageError) -> any BlockStorage {
    guard let file = layer as? HostFile else { throw .readOnly(path: layer.path) }
    return try file.writer()
  }

  /// The layer has the locks again before the writer is closed.
  package func giveUp(_ writer: any BlockStorage, over layer: any BlockStorage) {
    guard let writer = writer as? HostFile, let file = layer as? HostFile else { return }
    file.takeBack(from: writer)
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
    try ownMount?.checkName(path)
    return try call(path) { () throws(SystemError) in
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

  /// What the kernel says; a file of another kind of storage has no place.
  package func location(of storage: any BlockStorage) throws(StorageError) -> String {
    guard let file = storage as? HostFile else { throw .notAFile(path: storage.path) }
    return try file.location()
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
