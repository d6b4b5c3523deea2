package import BlockIO

/// Finds, opens and makes the files of images.
///
/// The seam between a chain and the host: tests put disks here that lose what was not flushed.
package protocol ImageFiles: Sendable {
  /// Opens the file of an image, with QEMU's locks for its role unless `isLocked` is false.
  func open(
    _ path: String, role: StorageRole, isReadOnly: Bool, isLocked: Bool
  ) throws(StorageError) -> any BlockStorage
  /// Makes a new file with the permissions of another one, and opens it as an active image.
  ///
  /// Nothing may be at the path yet, not even a symbolic link that leads nowhere.
  func create(
    _ path: String, like other: any BlockStorage, isLocked: Bool
  ) throws(StorageError) -> any BlockStorage
  /// Opens the file of a backing layer once more, for writing; its locks go to what is returned, which
  /// has those of an active image then. If it throws, the layer has its locks as before.
  func writer(over layer: any BlockStorage) throws(StorageError) -> any BlockStorage
  /// Undoes that, for a writer that was not put to use.
  func giveUp(_ writer: any BlockStorage, over layer: any BlockStorage)
  /// Takes the name of a file away.
  func remove(_ path: String) throws(StorageError)
  /// Makes the name of a file durable.
  func flushName(of path: String) throws(StorageError)
  /// Which file a path leads to.
  func identity(of path: String) throws(StorageError) -> StorageIdentity
  /// The path from the root, symbolic links kept.
  func absolutePath(of path: String) throws(StorageError) -> String
  /// Where an open file lies now, without symbolic links and `..`.
  func location(of storage: any BlockStorage) throws(StorageError) -> String
  /// The path from the root without symbolic links and `..`.
  func canonicalPath(of path: String) throws(StorageError) -> String
}
