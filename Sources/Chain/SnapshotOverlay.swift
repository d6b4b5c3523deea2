internal import BlockIO
internal import HostSystem
internal import ImageDriver

/// The image that a snapshot puts on top of a disk: open, durable and locked, but not in use yet.
struct SnapshotOverlay {
  let disk: Disk
  private let path: String
  private let image: any WritableImage
  /// The file was made for this, and goes again if it is given up.
  private let isNew: Bool
  /// What its header names.
  private let named: Named?

  /// A backing file, as it was before the gates were closed: where its name leads may be for the host to ask of
  /// whoever waits at one of them.
  private struct Named {
    var string: String
    var name: BackingName
    var place: String
    var identity: StorageIdentity
  }

  /// Makes or opens the overlay; leaves nothing behind if it fails.
  ///
  /// `others` are the overlays of other disks that go with it: none of them may have the same file.
  init(
    _ mode: SnapshotMode, of disk: Disk, at path: String, beside others: [SnapshotOverlay]
  ) throws(ChainError) {
    self.disk = disk
    self.path = path
    isNew = mode == .absolutePaths
    // Asked before it is opened: our own lock would be all that one learns.
    if !others.isEmpty, let identity = try disk.existingFile(at: path) {
      for other in others where other.image.uses(identity) {
        throw .oneFileForTwo(path: path, other.disk.name)
      }
    }
    let storage =
      switch mode {
      case .absolutePaths: try disk.makeOverlay(path)
      case .existing: try disk.opener.openFile(path, role: .active, isReadOnly: false)
      }
    do throws(ChainError) {
      image = try disk.opener.openOverlay(storage)
      named = try Self.named(by: image, path: path, disk.files)
    } catch {
      storage.close()
      if isNew { disk.removeOverlay(path, storage.identity) }
      throw error
    }
    for other in others where other.image.uses(image.data.identity) {
      let name = image.data.path
      abandon()
      throw .oneFileForTwo(path: name, other.disk.name)
    }
    if isNew { return }
    do throws(ChainError) { try makeDurable() } catch {
      abandon()
      throw error
    }
  }

  private static func named(
    by image: any Image, path: String, _ files: any ImageFiles
  ) throws(ChainError) -> Named? {
    guard let reference = image.backingReference else { return nil }
    let name = try BackingName(name: reference.name, format: reference.format, overlay: path)
    let place = PlacePath.resolve(name.path, from: PlacePath.directory(of: path))
    let identity = try onStorage { () throws(StorageError) in try files.identity(of: place) }
    return Named(string: reference.name, name: name, place: place, identity: identity)
  }

  /// Makes an image durable that somebody else has made, and perhaps never flushed.
  private func makeDurable() throws(ChainError) {
    // Order: the image, its data file and their names are durable before anything relies on them. Where
    // the path is a symbolic link, the name that it leads to counts as well.
    try onImage { () throws(ImageError) in try image.flush() }
    try onStorage { () throws(StorageError) in
      try disk.files.flushName(of: path)
      try disk.files.flushName(of: disk.files.location(of: image.storage))
      if image.data.identity != image.storage.identity {
        try disk.files.flushName(of: image.data.path)
      }
    }
  }

  /// Lets go of the files, and takes away what was made.
  func abandon() {
    image.closeFiles()
    if isNew { disk.removeOverlay(path, image.storage.identity) }
  }

  /// Makes all that was written durable in the old image, which gives back what it had claimed ahead, and
  /// gives the chain with the overlay on top.
  ///
  /// For who holds the gate exclusively. The old image goes on as it is if the chain is not put in force.
  func closedChain(over layers: DiskLayers) throws(ChainError) -> DiskLayers {
    let old = try disk.writable(layers)
    let lower = Layer(
      id: layers.active.id, image: layers.active.image, path: layers.active.path,
      namedAs: image.backingReference?.name, use: layers.active.use)
    try onImage { () throws(ImageError) in try old.close() }
    let backing = try BackingLayers(
      layers: [lower] + layers.backing.layers, version: layers.backing.version + 1)
    return DiskLayers(
      active: Layer(id: lower.id.next, image: image, path: path, namedAs: nil),
      writable: image, backing: backing)
  }
}

// MARK: - What has to be true of it

extension SnapshotOverlay {
  private func refusal(_ reason: String) -> ChainError {
    .snapshotRefused(path: path, kind: .invalid, reason: reason)
  }

  /// Throws if its files are files of a disk already.
  func check(isNoPartOf layers: DiskLayers, _ other: Disk) throws(ChainError) {
    let whose = other === disk ? "this disk" : other.name
    if layers.all.contains(where: { $0.image.storage.identity == image.storage.identity }) {
      throw refusal("it is a layer of \(whose) already")
    }
    if layers.all.contains(where: { $0.image.uses(image.data.identity) }) {
      throw refusal("its data file is a file of \(whose) already")
    }
  }

  /// Throws unless it is empty, as large as the disk, and what it names is the active image.
  func check(over layers: DiskLayers) throws(ChainError) {
    let active = layers.active
    guard image.virtualSize == active.image.virtualSize else {
      throw refusal(
        "it is \(image.virtualSize) bytes large, the disk \(active.image.virtualSize)")
    }
    guard let named else { throw refusal("it names no backing file") }
    guard named.identity == active.image.storage.identity,
      named.name.showsTheSame(as: BackingName(path: named.place))
    else { throw refusal("its backing file \(named.string) is not \(active.path)") }
    if let format = named.name.format, format.rawValue != active.image.formatName {
      throw refusal("it says that \(active.path) is \(format.rawValue)")
    }
    let size = image.virtualSize
    var position = GuestOffset.zero
    while position.rawValue < size {
      let extent = try onImage { () throws(ImageError) in
        try image.mapping(at: position, upTo: size - position.rawValue)
      }
      guard extent.mapping == .unallocated else { throw refusal("it is not empty") }
      position += extent.length
    }
  }
}

// MARK: - Its file

extension ChainError {
  static func oneFileForTwo(path: String, _ other: String) -> ChainError {
    .snapshotRefused(path: path, kind: .invalid, reason: "\(other) gets the same file")
  }
}

extension Disk {
  fileprivate var opener: ChainOpener { ChainOpener(configuration: configuration, files: files) }

  /// Which file is at a path, nil if there is none.
  fileprivate func existingFile(at path: String) throws(ChainError) -> StorageIdentity? {
    do {
      return try files.identity(of: path)
    } catch {
      if error.kind == .notFound { return nil }
      throw .storage(error)
    }
  }

  /// Makes the file of a new, empty overlay of the active image; leaves nothing behind if it fails.
  fileprivate func makeOverlay(_ path: String) throws(ChainError) -> any BlockStorage {
    let (active, size) = try withLayers { layers throws(ChainError) in
      (layers.active, layers.active.image.virtualSize)
    }
    let name = try onStorage { () throws(StorageError) in
      try files.absolutePath(of: active.path)
    }
    let storage: any BlockStorage
    do {
      storage = try files.create(
        path, like: active.image.storage, isLocked: configuration.locking == .qemu)
    } catch {
      throw error.kind == .exists
        ? .snapshotRefused(path: path, kind: .exists, reason: "there is a file already")
        : .storage(error)
    }
    do throws(ChainError) {
      try onImage { () throws(ImageError) in
        try ImageBuilder.create(
          on: storage, virtualSize: size,
          backing: BackingReference(name: name, format: active.image.formatName))
      }
      // Order: the image and its name are durable before anything relies on them.
      try onStorage { () throws(StorageError) in
        try storage.flush()
        try files.flushName(of: path)
      }
      return storage
    } catch {
      storage.close()
      removeOverlay(path, storage.identity)
      throw error
    }
  }

  // Best effort: the failure that led here is what the caller is told.
  fileprivate func removeOverlay(_ path: String, _ identity: StorageIdentity) {
    do {
      if try files.identity(of: path) == identity { try files.remove(path) }
    } catch {
      return
    }
  }
}
