internal import BlockIO
internal import HostSystem
internal import ImageDriver

extension Disk {
  /// The path of the active image.
  package var activePath: String {
    get throws(ChainError) {
      try withLayers { layers throws(ChainError) in layers.active.path }
    }
  }

  /// The layers of the disk, active image first.
  package func layers() throws(ChainError) -> [LayerDescription] {
    try withLayers { layers throws(ChainError) in
      var result: [LayerDescription] = []
      for (index, layer) in layers.all.enumerated() {
        result.append(try describe(layer, index: index))
      }
      return result
    }
  }

  /// One layer by its name, nil if it left the chain.
  package func layer(_ id: LayerID) throws(ChainError) -> LayerDescription? {
    try withLayers { layers throws(ChainError) in
      guard let index = layers.all.firstIndex(where: { $0.id == id }) else { return nil }
      return try describe(layers.all[index], index: index)
    }
  }

  /// How many internal snapshots the active image has; a stream fills what they lack.
  package func internalSnapshotCount() throws(ChainError) -> Int {
    try withLayers { layers throws(ChainError) in layers.active.image.internalSnapshotCount }
  }

  /// The layer below the active image, or below another one, that goes by this name.
  ///
  /// A layer is known by its file name, its path, and the string by which the image above it names
  /// it; a name that leads to its file from that image's directory is its name too. The topmost
  /// layer wins.
  package func findLayer(
    named name: String, below target: LayerID? = nil
  ) throws(ChainError) -> LayerID {
    // Lock: the gate is not held while the host is asked for paths: it might ask one that waits at it.
    let (above, lower) = try withLayers { layers throws(ChainError) in
      guard let above = layers.index(of: target ?? layers.active.id) else {
        throw gone(target ?? layers.active.id, layers)
      }
      return (layers.all[above], layers.backing.layers[above...])
    }
    var overlay = above
    for layer in lower {
      if name == layer.path || name == PlacePath.fileName(of: layer.path)
        || name == layer.namedAs
      {
        return layer.id
      }
      if try isPath(name, from: overlay, to: layer) { return layer.id }
      overlay = layer
    }
    throw .noSuchLayer(
      disk: self.name, name: name,
      have: lower.prefix(16).map { PlacePath.fileName(of: $0.path) })
  }

  private func isPath(
    _ name: String, from overlay: Layer, to layer: Layer
  ) throws(ChainError) -> Bool {
    if name.isEmpty || BackingName.scheme(of: name) != nil { return false }
    let path = PlacePath.resolve(name, from: PlacePath.directory(of: overlay.path))
    do {
      return try files.identity(of: path) == layer.image.storage.identity
    } catch {
      // A name that leads nowhere from here may still be another layer's name. Where the host cannot
      // say, another layer would be taken for the one that was meant.
      if error.kind == .io { throw .storage(error) }
      return false
    }
  }

  private func describe(_ layer: Layer, index: Int) throws(ChainError) -> LayerDescription {
    LayerDescription(
      index: index, id: layer.id, path: layer.path, format: layer.image.formatName,
      virtualSize: layer.image.virtualSize, allocatedBytes: try layer.allocatedBytes(),
      backingString: layer.image.backingReference?.name,
      isEncrypted: layer.image.data is EncryptedStorage,
      highestWritten: layer.use.image.data.highestWritten)
  }
}
