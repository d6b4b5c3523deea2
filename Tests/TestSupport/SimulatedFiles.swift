// A directory of disks that crash.
//
// A name that came, went or moved since the directory was last flushed is there after a crash or not,
// each on its own; what a name leads to moves with it in one step. The file behind a name is a
// SimulatedDisk, and what it has not flushed is lost or kept by sectors.
//
// It stands in for the host in both places where the product reaches for names: the images of a chain
// (`ImageFiles`) and the small files beside them (`NamedFiles`). All paths lie in one directory.

package import BlockIO
internal import Chain
package import HostSystem

/// A directory of disks that crash: its names are lost too if they were not flushed.
package final class SimulatedFiles: ImageFiles {
  /// A change of names that is not durable yet.
  fileprivate enum NameChange {
    case link(String, SimulatedDisk)
    case unlink(String)
    case rename(String, to: String, SimulatedDisk)
  }

  fileprivate struct State {
    var disks: [String: SimulatedDisk] = [:]
    var durable: [String: SimulatedDisk] = [:]
    var changes: [NameChange] = []
    var inodes: UInt64 = 0
    /// What befalls the next file that is made.
    var faultOfNew: SimulatedDisk.Fault?
    /// Files can share blocks.
    var sharesBlocks = false
  }

  private let state = Monitor(State())
  /// Hears of every change, of names as well.
  package let watch = DiskWatch()

  /// An empty directory, of files that can share blocks or not.
  package init(sharesBlocks: Bool = false) {
    state.withLock { $0.sharesBlocks = sharesBlocks }
  }

  /// The disk at a path.
  package func disk(_ path: String) -> SimulatedDisk? { state.withLock { $0.disks[path] } }

  /// The paths of all files, in order.
  package var names: [String] { state.withLock { $0.disks.keys.sorted() } }

  /// A crash would change nothing.
  package var isDurable: Bool {
    state.withLock { $0.changes.isEmpty && $0.disks.values.allSatisfy(\.isDurable) }
  }

  /// Sets what befalls the next file that is made.
  package func injectIntoNew(_ fault: SimulatedDisk.Fault?) {
    state.withLock { $0.faultOfNew = fault }
  }

  /// The directory as a crash leaves it.
  package func crash(seed: UInt64) -> SimulatedFiles { moment.crash(seed: seed) }

  /// All that a crash at this moment may make use of.
  package var moment: Moment {
    let now = state.withLock { $0 }
    var files: [UInt64: SimulatedDisk.Moment] = [:]
    for disk in now.durable.values { files[disk.identity.inode] = disk.moment }
    for case .link(_, let disk) in now.changes { files[disk.identity.inode] = disk.moment }
    return Moment(state: now, files: files)
  }

  /// A directory and its files at one moment, from which crashes can be made; shares all that it can.
  package struct Moment: Sendable {
    fileprivate let state: State
    fileprivate let files: [UInt64: SimulatedDisk.Moment]

    /// The directory as a crash leaves it.
    package func crash(seed: UInt64) -> SimulatedFiles {
      var random = SeededGenerator(seed: seed)
      var left = state.durable
      for change in state.changes where random.oneIn(2) {
        switch change {
        case .link(let path, let disk): left[path] = disk
        case .unlink(let path): left[path] = nil
        case .rename(let path, let new, let disk):
          left[path] = nil
          left[new] = disk
        }
      }
      let salt = random.next()
      return SimulatedFiles(
        left.mapValues { disk in
          let inode = disk.identity.inode
          let seed = salt ^ inode &* 0x9E37_79B9_7F4A_7C15
          return (disk, files[inode]?.bytesAfterCrash(seed: seed) ?? SparseBytes())
        }, state)
    }
  }

  /// The directory as a reader sees it, all of it durable.
  package func copied() -> SimulatedFiles {
    let before = state.withLock { $0 }
    return SimulatedFiles(before.disks.mapValues { ($0, $0.snapshot) }, before)
  }

  fileprivate convenience init(
    _ content: [String: (disk: SimulatedDisk, bytes: SparseBytes)], _ before: State
  ) {
    self.init(sharesBlocks: before.sharesBlocks)
    let watch = watch
    let disks = content.mapValues { old in
      SimulatedDisk(
        path: old.disk.path, seed: old.disk.identity.inode, inode: old.disk.identity.inode,
        watch: watch, sharesBlocks: before.sharesBlocks, durable: old.bytes)
    }
    state.withLock { state in
      state.disks = disks
      state.durable = disks
      state.inodes = before.inodes
    }
  }

  /// Makes everything durable, and what was closed can be opened again.
  package func settle() {
    let watch = watch
    state.withLock { state in
      let sharesBlocks = state.sharesBlocks
      state.disks = state.disks.mapValues { disk in
        SimulatedDisk(
          path: disk.path, seed: disk.identity.inode, inode: disk.identity.inode, watch: watch,
          sharesBlocks: sharesBlocks, durable: disk.snapshot)
      }
      state.durable = state.disks
      state.changes = []
    }
  }

  /// Puts a durable file in place.
  package func put(_ path: String, _ bytes: [UInt8]) { put(path, SparseBytes(bytes)) }

  /// Puts a durable file in place.
  package func put(_ path: String, _ bytes: SparseBytes) {
    let watch = watch
    state.withLock { state in
      state.inodes += 1
      let disk = SimulatedDisk(
        path: path, seed: state.inodes, inode: state.inodes, watch: watch,
        sharesBlocks: state.sharesBlocks, durable: bytes)
      state.disks[path] = disk
      state.durable[path] = disk
    }
  }

  private func tell(_ path: String, _ kind: DiskChange.Kind) {
    watch.tell(DiskChange(path: path, kind: kind, offset: 0, length: 0))
  }
}

// MARK: - Images

extension SimulatedFiles {
  private func failure(_ path: String, _ number: Int32) -> StorageError {
    .system(path: path, SystemError(call: "open", number: number))
  }

  /// Opens a disk, also one that was closed.
  package func open(
    _ path: String, role: StorageRole, isReadOnly: Bool, isLocked: Bool
  ) throws(StorageError) -> any BlockStorage {
    guard let disk = disk(path) else { throw failure(path, 2) }
    disk.reopen()
    try disk.changeRole(to: isReadOnly ? .backing : role)
    return disk
  }

  /// Makes a disk whose name a crash may lose.
  package func create(
    _ path: String, like other: any BlockStorage, isLocked: Bool
  ) throws(StorageError) -> any BlockStorage {
    guard let disk = added(path) else { throw failure(path, 17) }
    return disk
  }

  /// The same disk, as one that may be written to.
  package func writer(over layer: any BlockStorage) throws(StorageError) -> any BlockStorage {
    guard let disk = layer as? SimulatedDisk else { throw .readOnly(path: layer.path) }
    try disk.changeRole(to: .active)
    return disk
  }

  /// The disk is a backing file again.
  package func giveUp(_ writer: any BlockStorage, over layer: any BlockStorage) {
    writer.becomeBacking()
  }

  private func added(_ path: String) -> SimulatedDisk? {
    let watch = watch
    let made = state.withLock { state -> SimulatedDisk? in
      if state.disks[path] != nil { return nil }
      state.inodes += 1
      let disk = SimulatedDisk(
        path: path, seed: state.inodes, inode: state.inodes, watch: watch,
        sharesBlocks: state.sharesBlocks)
      disk.inject(state.faultOfNew)
      state.disks[path] = disk
      state.changes.append(.link(path, disk))
      return disk
    }
    if made != nil { tell(path, .name) }
    return made
  }

  /// Takes a name away, durably.
  package func remove(_ path: String) throws(StorageError) {
    do {
      try unlink(path)
    } catch {
      if error.kind != .notFound { throw .system(path: path, error) }
    }
    flushNames(path)
  }

  /// Makes all names durable.
  package func flushName(of path: String) throws(StorageError) { flushNames(path) }

  private func flushNames(_ path: String) {
    state.withLock { state in
      state.durable = state.disks
      state.changes = []
    }
    tell(path, .flushNames)
  }

  /// The identity of a disk, which a crash does not change.
  package func identity(of path: String) throws(StorageError) -> StorageIdentity {
    guard let disk = disk(path) else { throw failure(path, 2) }
    return disk.identity
  }

  /// The path as it is.
  package func absolutePath(of path: String) throws(StorageError) -> String { path }
  /// Nothing moves here.
  package func location(of storage: any BlockStorage) throws(StorageError) -> String {
    storage.path
  }
  /// The path as it is.
  package func canonicalPath(of path: String) throws(StorageError) -> String { path }
}

// MARK: - Small files

extension SimulatedFiles: NamedFiles {
  private final class Fresh: FreshFile {
    let disk: SimulatedDisk

    init(_ disk: SimulatedDisk) { self.disk = disk }

    func write(_ bytes: [UInt8]) throws(SystemError) {
      do throws(StorageError) { try disk.put(bytes, at: 0) } catch {
        throw SystemError(call: "pwrite", number: 5)
      }
    }

    func synchronize() throws(SystemError) {
      do throws(StorageError) { try disk.flush() } catch {
        throw SystemError(call: "fsync", number: 5)
      }
    }
  }

  /// Makes a file whose name a crash may lose.
  package func make(_ path: String) throws(SystemError) -> any FreshFile {
    guard let disk = added(path) else { throw SystemError(call: "open", number: 17) }
    return Fresh(disk)
  }

  /// The bytes of a file as a reader sees them.
  package func bytes(of path: String, limit: Int) throws(SystemError) -> [UInt8] {
    guard let disk = disk(path) else { throw SystemError(call: "open", number: 2) }
    let content = disk.snapshot
    return content.bytes(0, min(limit, Int(content.count)))
  }

  /// Moves a name; a crash finds it moved or not.
  package func rename(_ path: String, to new: String) throws(SystemError) {
    let isThere = state.withLock { state in
      guard let disk = state.disks.removeValue(forKey: path) else { return false }
      state.disks[new] = disk
      state.changes.append(.rename(path, to: new, disk))
      return true
    }
    if !isThere { throw SystemError(call: "rename", number: 2) }
    tell(new, .name)
  }

  /// Takes a name away; a crash may bring it back.
  package func unlink(_ path: String) throws(SystemError) {
    let isThere = state.withLock { state in
      if state.disks.removeValue(forKey: path) == nil { return false }
      state.changes.append(.unlink(path))
      return true
    }
    if !isThere { throw SystemError(call: "unlink", number: 2) }
    tell(path, .name)
  }

  /// Makes all names durable.
  package func flushDirectory(_ path: String) throws(SystemError) { flushNames(path) }
}
