import BlockIO
import Glibc
import HostSystem
import TestSupport

@testable import Chain

/// A directory of files in memory.
final class FuzzFiles: ImageFiles {
  private let files = Monitor<[String: MemoryStorage]>([:])

  /// No file gets longer: whatever an entry says, a check of the image is soon done.
  static let largest: UInt64 = 1 << 26

  func put(_ path: String, _ content: SparseBytes) {
    files.withLock { $0[path] = Self.storage(path, content) }
  }

  private static func storage(_ path: String, _ content: SparseBytes) -> MemoryStorage {
    MemoryStorage(path: path, content: content, largest: largest)
  }

  /// The bytes of a file.
  func content(of path: String) -> SparseBytes {
    files.withLock { $0[path]?.snapshot } ?? SparseBytes()
  }

  /// Lets what was closed be opened again.
  func settle() {
    files.withLock { files in
      for (path, file) in files {
        files[path] = Self.storage(path, file.snapshot)
      }
    }
  }

  /// A file on its own.
  func file(_ path: String) throws(StorageError) -> MemoryStorage {
    guard let file = files.withLock({ $0[path] }) else {
      throw .system(path: path, SystemError(call: "open", number: ENOENT))
    }
    return file
  }

  func open(
    _ path: String, role: StorageRole, isReadOnly: Bool, isLocked: Bool
  ) throws(StorageError) -> any BlockStorage {
    let file = try file(path)
    try file.changeRole(to: isReadOnly ? .backing : role)
    return file
  }

  func create(
    _ path: String, like other: any BlockStorage, isLocked: Bool
  ) throws(StorageError) -> any BlockStorage {
    let file = Self.storage(path, SparseBytes())
    let isNew = files.withLock { files in
      if files[path] != nil { return false }
      files[path] = file
      return true
    }
    if !isNew { throw .system(path: path, SystemError(call: "open", number: EEXIST)) }
    return file
  }

  func writer(over layer: any BlockStorage) throws(StorageError) -> any BlockStorage {
    let file = try file(layer.path)
    try file.changeRole(to: .active)
    return file
  }
  func giveUp(_ writer: any BlockStorage, over layer: any BlockStorage) { writer.becomeBacking() }

  func remove(_ path: String) throws(StorageError) { files.withLock { $0[path] = nil } }
  func flushName(of path: String) throws(StorageError) {}
  func identity(of path: String) throws(StorageError) -> StorageIdentity {
    try file(path).identity
  }
  func location(of storage: any BlockStorage) throws(StorageError) -> String { storage.path }
  func absolutePath(of path: String) throws(StorageError) -> String { path }
  func canonicalPath(of path: String) throws(StorageError) -> String { path }
}
