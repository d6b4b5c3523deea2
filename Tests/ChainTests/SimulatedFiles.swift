import BlockIO
import Foundation
import HostSystem
import Synchronization
import TestSupport

@testable import Chain

/// A directory of disks that crash: its names are lost too if they were not flushed.
final class SimulatedFiles: ImageFiles {
  private struct State {
    var disks: [String: SimulatedDisk] = [:]
    var durableNames: Set<String> = []
    var inodes: UInt64 = 0
    /// What befalls the next file that is made.
    var faultOfNew: SimulatedDisk.Fault?
  }

  private let state = Mutex(State())

  /// The disk at a path.
  func disk(_ path: String) -> SimulatedDisk? { state.withLock { $0.disks[path] } }

  var names: [String] { state.withLock { $0.disks.keys.sorted() } }

  func injectIntoNew(_ fault: SimulatedDisk.Fault?) { state.withLock { $0.faultOfNew = fault } }

  /// The directory as a crash leaves it.
  func crash(seed: UInt64) -> SimulatedFiles {
    let after = SimulatedFiles()
    var random = SeededGenerator(seed: seed)
    let before = state.withLock { $0 }
    for (path, disk) in before.disks.sorted(by: { $0.key < $1.key }) {
      if !before.durableNames.contains(path), random.oneIn(2) { continue }
      let left = disk.crash(seed: random.next())
      after.state.withLock { state in
        state.disks[path] = left
        state.durableNames.insert(path)
        state.inodes = before.inodes
      }
    }
    return after
  }

  /// Makes everything durable, and what was closed can be opened again.
  func settle() {
    state.withLock { state in
      for (path, disk) in state.disks {
        state.disks[path] = SimulatedDisk(
          path: path, seed: disk.identity.inode, inode: disk.identity.inode,
          durable: disk.snapshot)
        state.durableNames.insert(path)
      }
    }
  }

  /// Puts a durable file in place.
  func put(_ path: String, _ bytes: [UInt8]) {
    var content = SparseBytes()
    content.put(bytes, at: 0)
    let durable = content
    state.withLock { state in
      state.inodes += 1
      state.disks[path] = SimulatedDisk(
        path: path, seed: state.inodes, inode: state.inodes, durable: durable)
      state.durableNames.insert(path)
    }
  }

  private func failure(_ path: String, _ number: Int32) -> StorageError {
    .system(path: path, SystemError(call: "open", number: number))
  }

  func open(
    _ path: String, role: StorageRole, isReadOnly: Bool, isLocked: Bool
  ) throws(StorageError) -> any BlockStorage {
    guard let disk = disk(path) else { throw failure(path, ENOENT) }
    try disk.changeRole(to: isReadOnly ? .backing : role)
    return disk
  }

  func create(
    _ path: String, like other: any BlockStorage, isLocked: Bool
  ) throws(StorageError) -> any BlockStorage {
    if disk(path) != nil { throw failure(path, EEXIST) }
    return state.withLock { state in
      state.inodes += 1
      let disk = SimulatedDisk(path: path, seed: state.inodes, inode: state.inodes)
      disk.inject(state.faultOfNew)
      state.disks[path] = disk
      return disk
    }
  }

  func remove(_ path: String) throws(StorageError) {
    state.withLock { state in
      state.disks[path] = nil
      state.durableNames.remove(path)
    }
  }

  func flushName(of path: String) throws(StorageError) {
    state.withLock { _ = $0.durableNames.insert(path) }
  }

  func identity(of path: String) throws(StorageError) -> StorageIdentity {
    guard let disk = disk(path) else { throw failure(path, ENOENT) }
    return disk.identity
  }

  func absolutePath(of path: String) throws(StorageError) -> String { path }
  func canonicalPath(of path: String) throws(StorageError) -> String { path }
}
