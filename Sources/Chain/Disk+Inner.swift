internal import BlockIO
internal import HostSystem
internal import ImageDriver

extension Disk {
  /// Memory for the map of an inner disk, whose stream goes over each place once, in order.
  private static let innerMapBytes = 4 << 20

  /// Makes a layer below the active image one that a stream can copy into.
  ///
  /// Refused for a layer that is not qcow2, that the host does not let be written, that somebody else
  /// uses, and whose image may not be written to in the state it is in; nothing is changed then. The
  /// caller sees to it that the layer stays in the chain, and what it streams from, until the inner
  /// disk has ended, and that the disk is closed later.
  package func openInner(_ target: LayerID) throws(ChainError) -> InnerDisk {
    if isReadOnly { throw .readOnly(disk: name) }
    let layer = try withLayers { layers throws(ChainError) in
      guard let layer = layers.backing.layer(target) else { throw gone(target, layers) }
      return layer
    }
    let files = try openWriters(of: layer)
    do throws(ChainError) {
      let image = try onImage { () throws(ImageError) in
        try Qcow2Image(storage: files.storage, data: files.data)
      }
      return InnerDisk(try putInPlace(of: target, image), in: self, target: target)
    } catch {
      giveUp(files)
      throw error
    }
  }

  /// The chain with an object of the layer that can be written, as a disk from that layer down.
  private func putInPlace(
    of target: LayerID, _ image: any WritableImage
  ) throws(ChainError) -> Disk {
    var inner: Disk?
    try changeLayers { layers throws(ChainError) in
      guard let index = layers.index(of: target), index > 0 else { throw gone(target, layers) }
      let changed = try replaced(target, by: image, in: layers)
      let active = changed.backing.layers[index - 1]
      let lower = try BackingLayers(layers: Array(changed.backing.layers[index...]), version: 0)
      let chain = DiskLayers(active: active, writable: image, backing: lower)
      // Nothing fails from here on.
      active.use.replace(image)
      for layer in chain.all { layer.use.begin() }
      var configuration = configuration
      configuration.mapCacheBytes = min(configuration.mapCacheBytes, Self.innerMapBytes)
      inner = Disk(
        layers: chain, configuration: configuration, timeSource: timeSource, files: files,
        around: self)
      return changed
    }
    guard let inner else { preconditionFailure("a chain was changed without its inner disk") }
    return inner
  }

  /// The chain with another object for a layer. What was merged for it stays true.
  private func replaced(
    _ target: LayerID, by image: any Image, in layers: DiskLayers
  ) throws(ChainError) -> DiskLayers {
    let backing = layers.backing.layers.map { layer in
      layer.id == target
        ? Layer(
          id: layer.id, image: image, path: layer.path, namedAs: layer.namedAs, use: layer.use)
        : layer
    }
    return DiskLayers(
      active: layers.active, writable: layers.writable,
      backing: try BackingLayers(layers: backing, version: layers.backing.version))
  }

  /// Reads a layer's tables from the host again, which are older than those in memory: what could not
  /// be made durable may be gone, and is still to be had from the layers below.
  func readAnew(_ target: LayerID) throws(ChainError) {
    try changeLayers { layers throws(ChainError) in
      guard let layer = layers.backing.layer(target) else { return layers }
      let old = layer.image
      let image = try onImage { () throws(ImageError) in
        try Qcow2Image(
          storage: old.storage, data: old.data === old.storage ? nil : old.data,
          cacheBytes: Qcow2Image.layerCacheBytes)
      }
      let changed = try replaced(target, by: image, in: layers)
      layer.use.replace(image)
      era.end()
      return changed
    }
  }
}

// MARK: - Files

extension Disk {
  /// The files of a layer, open once more for writing.
  private struct Writers {
    var storage: any BlockStorage
    /// Nil for the image file itself.
    var data: (any BlockStorage)?
    /// What each of them was opened over.
    var pairs: [(writer: any BlockStorage, layer: any BlockStorage)]
  }

  private func openWriters(of layer: Layer) throws(ChainError) -> Writers {
    let image = layer.image
    func refusal(_ reason: String) -> ChainError {
      .layerRefused(path: layer.path, reason: reason)
    }
    guard image.formatName == "qcow2" else {
      throw refusal("it is \(image.formatName), and only qcow2 can be streamed into")
    }
    if image.storage is WindowStorage { throw refusal("it is a part of a file") }
    // Somebody may know them by the tables of before.
    if let earlier = image as? Qcow2Image, earlier.hasFreedClusters {
      throw refusal("clusters that an earlier stream freed are given back by the next mount only")
    }
    var writers = Writers(storage: try writer(over: image.storage, of: layer), pairs: [])
    writers.pairs = [(writers.storage, image.storage)]
    do throws(ChainError) {
      let encrypted = image.data as? EncryptedStorage
      let plain = encrypted?.base ?? image.data
      if plain.identity != image.storage.identity {
        let data = try writer(over: plain, of: layer)
        writers.pairs.append((data, plain))
        writers.data = data
      }
      if let encrypted { writers.data = encrypted.over(writers.data ?? writers.storage) }
      return writers
    } catch {
      giveUp(writers)
      throw error
    }
  }

  private func writer(
    over storage: any BlockStorage, of layer: Layer
  ) throws(ChainError) -> any BlockStorage {
    do { return try files.writer(over: storage) } catch {
      switch error.kind {
      case .readOnly, .notPermitted, .accessDenied: throw .layerReadOnly(path: storage.path)
      default: throw .storage(error)
      }
    }
  }

  private func giveUp(_ writers: Writers) {
    for pair in writers.pairs.reversed() { files.giveUp(pair.writer, over: pair.layer) }
  }
}
