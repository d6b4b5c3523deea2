internal import BlockIO
internal import HostSystem
internal import ImageDriver

// Which files are opened, and as what. The whole policy stands in the article OpenPolicy; here is
// its order for each layer, so that nothing is read from a file before it may be opened:
//
//     1  the overlay's name is taken apart; protocols and unknown options are refused
//     2  the path is resolved from the overlay's directory; a file that is in the chain already is
//        a loop, unless the chain shows another window of it
//     3  the file has to lie in backing-root
//     4  it is opened read-only, with QEMU's locks; the open file has to lie in backing-root: a link
//        on the way may have been turned meanwhile, and only an open file stays what it is
//     5  the format is the one that the overlay names; with none, a qcow2 magic decides, and a file
//        without it is refused: a guest could write a qcow2 header into a raw disk of its own, and
//        have it name any file of the host as its backing file
//     6  images of other programs are told by their magic, and refused with the command that converts

/// Opens the layers of one disk.
struct ChainOpener {
  /// Layers that a chain may have, with the active image.
  static let layerLimit = 1000

  var configuration: DeviceConfiguration
  var files: any ImageFiles

  private struct Opened {
    var image: any Image
    var path: String
    var namedAs: String?
  }

  /// Opens the active image and everything below it.
  func open() throws(ChainError) -> DiskLayers {
    let path = configuration.image.path
    let isReadOnly = configuration.isReadOnly
    let storage = try openFile(
      path, role: isReadOnly ? .backing : .active, isReadOnly: isReadOnly)
    var seen = ChainFiles()
    _ = seen.isNew(layer: storage.identity, windows: [])
    let active = try openActive(storage, &seen)
    var opened = [Opened(image: active, path: path, namedAs: nil)]
    try openBacking(&opened, &seen)
    var layers: [Layer] = []
    for (index, one) in opened.enumerated() {
      let id = LayerID(rawValue: UInt32(opened.count - 1 - index))
      layers.append(Layer(id: id, image: one.image, path: one.path, namedAs: one.namedAs))
    }
    return DiskLayers(
      active: layers[0], writable: isReadOnly ? nil : active,
      backing: try BackingLayers(layers: Array(layers.dropFirst()), version: 0))
  }

  /// Opens an overlay that is put on top of the chain, and nothing below it.
  func openOverlay(_ storage: any BlockStorage) throws(ChainError) -> any WritableImage {
    try checkQcow2(storage)
    var seen = ChainFiles()
    _ = seen.isNew(layer: storage.identity, windows: [])
    return try openQcow2(storage, &seen, cacheBytes: Qcow2Image.activeCacheBytes)
  }

  private func openBacking(
    _ opened: inout [Opened], _ seen: inout ChainFiles
  ) throws(ChainError) {
    var next = try nameBelow(opened[0].image, path: opened[0].path)
    while let (name, string) = next {
      let overlay = opened[opened.count - 1].path
      if opened.count == Self.layerLimit {
        throw .tooManyLayers(limit: Self.layerLimit, overlay: overlay)
      }
      let path = PlacePath.resolve(name.path, from: PlacePath.directory(of: overlay))
      let file = try openBackingFile(path, name.windows, overlay: overlay, seen: &seen)
      let storage = try windows(name, of: file, string: string, overlay: overlay)
      let image: any Image
      if name.format == .raw {
        image = try openRaw(storage)
      } else {
        if let foreign = try foreignFormat(of: storage) {
          throw .backingForeign(path: path, overlay: overlay, foreign)
        }
        guard try isQcow2(storage) else {
          throw name.format == nil
            ? .formatMissing(backing: string, overlay: overlay)
            : .backingNotQcow2(path: path, overlay: overlay)
        }
        image = try openQcow2(storage, &seen, cacheBytes: Qcow2Image.layerCacheBytes)
      }
      opened.append(Opened(image: image, path: path, namedAs: string))
      switch name.below {
      case .asItsHeaderSays: next = try nameBelow(image, path: path)
      case .nothing: next = nil
      case .image(let inner): next = (inner, inner.spelled(path: inner.path))
      }
    }
  }

  private func nameBelow(
    _ image: any Image, path: String
  ) throws(ChainError) -> (BackingName, String)? {
    guard let reference = image.backingReference else { return nil }
    let name = try BackingName(
      name: reference.name, format: reference.format, overlay: path)
    return (name, reference.name)
  }

  private func openBackingFile(
    _ path: String, _ windows: [BackingName.Window], overlay: String, seen: inout ChainFiles
  ) throws(ChainError) -> any BlockStorage {
    let identity: StorageIdentity
    do {
      identity = try files.identity(of: path)
    } catch {
      throw error.kind == .notFound
        ? .backingMissing(path: path, overlay: overlay) : .storage(error)
    }
    // Before the file is opened: our own lock on it would be all that one learns.
    if !seen.isNew(layer: identity, windows: windows) {
      throw .loop(path: path, overlay: overlay)
    }
    let storage = try openInRoot(path, role: .backing, isReadOnly: true)
    // The file that was looked at is the file that was opened.
    if storage.identity != identity {
      storage.close()
      throw .backingRefused(
        name: path, overlay: overlay, reason: "another file took its place while it was opened")
    }
    return storage
  }

  /// Opens a file that an image's header names, if it lies where such files may lie.
  func openInRoot(
    _ path: String, role: StorageRole, isReadOnly: Bool
  ) throws(ChainError) -> any BlockStorage {
    if let root = configuration.backingRoot {
      try check(
        try onStorage { () throws(StorageError) in try files.canonicalPath(of: path) }, in: root)
    }
    let storage = try openFile(path, role: role, isReadOnly: isReadOnly)
    do throws(ChainError) { try checkInRoot(storage) } catch {
      storage.close()
      throw error
    }
    return storage
  }

  /// Throws if an open file lies where nothing is opened that an image's header names.
  func checkInRoot(_ storage: any BlockStorage) throws(ChainError) {
    guard let root = configuration.backingRoot else { return }
    try check(
      try onStorage { () throws(StorageError) in try files.location(of: storage) }, in: root)
  }

  private func check(_ place: String, in root: String) throws(ChainError) {
    let directory = try onStorage { () throws(StorageError) in try files.canonicalPath(of: root) }
    if !PlacePath.lies(place, in: directory) { throw .outsideRoot(path: place, root: root) }
  }

  /// Opens the file of a layer.
  func openFile(
    _ path: String, role: StorageRole, isReadOnly: Bool
  ) throws(ChainError) -> any BlockStorage {
    try onStorage { () throws(StorageError) in
      try files.open(
        path, role: role, isReadOnly: isReadOnly, isLocked: configuration.locking == .qemu)
    }
  }

  /// The part of a file that a name is about, by QEMU's rules.
  func windows(
    _ name: BackingName, of file: any BlockStorage, string: String, overlay: String
  ) throws(ChainError) -> any BlockStorage {
    var storage = file
    for window in name.windows {
      let size = try onStorage { () throws(StorageError) in try storage.size() }
      // To QEMU a file ends at a whole sector.
      let end = size > UInt64(Int64.max) - 511 ? size : (size + 511) & ~511
      guard window.offset <= end, window.size ?? 0 <= end - window.offset else {
        throw .backingRefused(
          name: string, overlay: overlay,
          reason: "it shows bytes from \(window.offset) on"
            + (window.size.map { ", \($0) of them," } ?? "")
            + " of \(name.path), which has \(size)")
      }
      storage = WindowStorage(
        storage, from: window.offset, length: window.size ?? (end - window.offset))
    }
    return storage
  }

  private func foreignFormat(of storage: any BlockStorage) throws(ChainError) -> ForeignFormat? {
    try onImage { () throws(ImageError) in try ForeignFormat.recognized(in: storage) }
  }

  /// Throws unless a file that has to be qcow2 is.
  func checkQcow2(_ storage: any BlockStorage) throws(ChainError) {
    if let foreign = try foreignFormat(of: storage) {
      throw .foreign(path: storage.path, foreign)
    }
    guard try isQcow2(storage) else { throw .notQcow2(path: storage.path) }
  }

  private func isQcow2(_ storage: any BlockStorage) throws(ChainError) -> Bool {
    try onImage { () throws(ImageError) in try Qcow2Image.isQcow2(storage) }
  }

  private func openActive(
    _ storage: any BlockStorage, _ seen: inout ChainFiles
  ) throws(ChainError) -> any WritableImage {
    switch configuration.image {
    case .raw: return try openRaw(storage)
    case .qcow2:
      try checkQcow2(storage)
      return try openQcow2(storage, &seen, cacheBytes: Qcow2Image.activeCacheBytes)
    }
  }

  private func openQcow2(
    _ storage: any BlockStorage, _ seen: inout ChainFiles, cacheBytes: Int
  ) throws(ChainError) -> any WritableImage {
    let data = try guestData(of: storage, &seen)
    return try onImage { () throws(ImageError) in
      try Qcow2Image(storage: storage, data: data, cacheBytes: cacheBytes)
    }
  }

  private func openRaw(_ storage: any BlockStorage) throws(ChainError) -> any WritableImage {
    try onImage { () throws(ImageError) in try RawImage(storage: storage) }
  }
}
