internal import BlockIO
internal import HostSystem
internal import ImageDriver

// A live snapshot: a new, empty overlay becomes the active image, and what was active until now
// becomes the topmost backing layer and never changes again.
//
//     1  the overlay is made (or opened, mode=existing), durable with its name, and locked
//     2  it is checked: same size, nothing in it, and its backing name leads to the active image
//     3  flush                                          long, guests go on
//     -- gate, exclusive ------------------------------------------------------------------
//     4  flush again, give unused clusters back         short, nothing new comes in
//     5  the old image's locks become those of a backing layer, and it refuses writes
//     6  the chain in memory; the next write goes to the overlay
//     -- end of gate ----------------------------------------------------------------------
//
// Any failure up to 5 takes a file that was made here away again and leaves the disk as it was. After 5
// nothing can fail. A crash between 1 and 6 leaves an overlay that nobody uses, beside an untouched
// chain; the images of both are valid.

/// Where the overlay of a snapshot comes from.
package enum SnapshotMode: Sendable {
  /// It is made, and names the image below it by its absolute path.
  case absolutePaths
  /// It is there already: empty, of the same size, and on top of the active image.
  case existing
}

extension Disk {
  /// Puts a new active image on top of the chain.
  ///
  /// The path has to be absolute. Nothing of the disk's bytes changes. When it throws, the disk is as
  /// before and no file was left behind.
  package func snapshot(
    path: String, format: String = "qcow2", mode: SnapshotMode = .absolutePaths
  ) throws(ChainError) {
    if isReadOnly { throw .readOnly(disk: name) }
    func refusal(_ kind: FailureKind, _ reason: String) -> ChainError {
      .snapshotRefused(path: path, kind: kind, reason: reason)
    }
    guard format == "qcow2" else {
      throw refusal(.unsupported, "format \(format) cannot hold a snapshot, only qcow2 can")
    }
    guard PlacePath.isAbsolute(path) else {
      throw refusal(.invalid, "the path has to be absolute")
    }
    guard virtualSize.isMultiple(of: 512) else {
      throw refusal(.unsupported, "the size of the disk is not a multiple of 512")
    }
    switch mode {
    case .absolutePaths:
      let storage = try makeOverlay(path)
      do throws(ChainError) {
        try put(try opener.openOverlay(storage), named: path)
      } catch {
        storage.close()
        removeOverlay(path, storage.identity)
        throw error
      }
    case .existing:
      let storage = try opener.openFile(path, role: .active, isReadOnly: false)
      do throws(ChainError) {
        try put(try opener.openOverlay(storage), named: path)
      } catch {
        storage.close()
        throw error
      }
    }
  }

  private var opener: ChainOpener { ChainOpener(configuration: configuration, files: files) }

  /// Makes the file of a new, empty overlay of the active image; leaves nothing behind if it fails.
  private func makeOverlay(_ path: String) throws(ChainError) -> any BlockStorage {
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
  private func removeOverlay(_ path: String, _ identity: StorageIdentity) {
    do {
      if try files.identity(of: path) == identity { try files.remove(path) }
    } catch {
      return
    }
  }

  /// Puts an open overlay on top, if it is fit for that.
  private func put(_ overlay: any WritableImage, named path: String) throws(ChainError) {
    try flush()
    try changeLayers { layers throws(ChainError) in
      let old = try writable(layers)
      let reference = try checkedReference(of: overlay, named: path, over: layers)
      let lower = Layer(
        id: layers.active.id, image: layers.active.image, path: layers.active.path,
        namedAs: reference.name, use: layers.active.use)
      // Order: what was written is durable in the old image before it stops being written.
      try onImage { () throws(ImageError) in try old.close() }
      let backing = try BackingLayers(
        layers: [lower] + layers.backing.layers, version: layers.backing.version + 1)
      try onStorage { () throws(StorageError) in try old.changeRole(to: .backing) }
      return DiskLayers(
        active: Layer(id: lower.id.next, image: overlay, path: path, namedAs: nil),
        writable: overlay, backing: backing)
    }
  }

  /// What the overlay calls the image below it, checked to be the active image.
  private func checkedReference(
    of overlay: any WritableImage, named path: String, over layers: DiskLayers
  ) throws(ChainError) -> BackingReference {
    func refusal(_ reason: String) -> ChainError {
      .snapshotRefused(path: path, kind: .invalid, reason: reason)
    }
    let active = layers.active
    guard overlay.virtualSize == active.image.virtualSize else {
      throw refusal(
        "it is \(overlay.virtualSize) bytes large, the disk \(active.image.virtualSize)")
    }
    if layers.all.contains(where: { $0.image.storage.identity == overlay.storage.identity }) {
      throw refusal("it is a layer of this disk already")
    }
    if layers.all.contains(where: { $0.image.uses(overlay.data.identity) }) {
      throw refusal("its data file is a file of this disk already")
    }
    guard let reference = overlay.backingReference else {
      throw refusal("it names no backing file")
    }
    let name = try BackingName(name: reference.name, format: reference.format, overlay: path)
    let place = PlacePath.resolve(name.path, from: PlacePath.directory(of: path))
    let identity = try onStorage { () throws(StorageError) in try files.identity(of: place) }
    guard identity == active.image.storage.identity,
      name.showsTheSame(as: BackingName(path: place))
    else { throw refusal("its backing file \(reference.name) is not \(active.path)") }
    if let format = name.format, format.rawValue != active.image.formatName {
      throw refusal("it says that \(active.path) is \(format.rawValue)")
    }
    let size = overlay.virtualSize
    if size > 0 {
      var position = GuestOffset.zero
      while position.rawValue < size {
        let extent = try onImage { () throws(ImageError) in
          try overlay.mapping(at: position, upTo: size - position.rawValue)
        }
        guard extent.mapping == .unallocated else { throw refusal("it is not empty") }
        position += extent.length
      }
    }
    return reference
  }
}
