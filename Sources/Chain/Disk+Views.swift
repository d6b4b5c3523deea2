internal import HostSystem
internal import ImageDriver

// Views: the disk as of each of its layers, and of each internal snapshot of a layer.
//
// They are listed by the chain as it is now, active image first, each layer before its snapshots. The
// first one is the disk itself, which changes; the others never do.

extension Disk {
  /// Views in their order, behind `last` or from the first one, about as many as asked for.
  ///
  /// None are left if none are given. It goes on in the right place if the chain has changed since. A
  /// layer whose snapshots cannot be listed is listed without them, and `note` is told why.
  package func views(
    after last: ViewID? = nil, limit: Int, note: (ChainError) -> Void
  ) throws(ChainError) -> [(id: ViewID, name: String)] {
    try withLayers { layers throws(ChainError) in
      var (index, place) = Self.position(after: last, layers)
      var result: [(id: ViewID, name: String)] = []
      while result.count < limit, let layer = layers.layer(at: index) {
        let fileName = layer.fileName
        // The layer itself is before its first snapshot.
        if place < 0 {
          result.append(
            (index == 0 ? .now : .layer(layer.id), ViewName.layer(index: index, fileName: fileName))
          )
          place = 0
        }
        do throws(ChainError) {
          let names = try names(ofSnapshotsOf: layer).names
          while place < names.count, result.count < limit {
            result.append(
              (
                .snapshot(layer.id, place),
                ViewName.snapshot(names[place], index: index, fileName: fileName)
              ))
            place += 1
          }
        } catch { note(error) }
        index += 1
        place = -1
      }
      return result
    }
  }

  /// The layer and the snapshot of it from which a list goes on; snapshot -1 is the layer itself.
  private static func position(
    after last: ViewID?, _ layers: DiskLayers
  ) -> (index: Int, place: Int) {
    let (id, place): (LayerID, Int)
    switch last {
    case nil: return (0, -1)
    case .now: return (0, 0)
    case .layer(let layer): (id, place) = (layer, 0)
    case .snapshot(let layer, let number): (id, place) = (layer, number + 1)
    }
    if let index = layers.index(of: id) { return (index, place) }
    // It has left the chain: what was below it comes next.
    return (layers.backing.index(notAbove: id) + 1, -1)
  }

  /// The view with this name now, nil if there is none.
  package func view(named name: String) throws(ChainError) -> ViewDescription? {
    try withLayers { layers throws(ChainError) in
      guard let index = ViewName.index(in: name), let layer = layers.layer(at: index) else {
        return nil
      }
      let fileName = layer.fileName
      if name == ViewName.layer(index: index, fileName: fileName) {
        return try describe(index == 0 ? .now : .layer(layer.id), layers)
      }
      guard let part = ViewName.snapshot(in: name, index: index, fileName: fileName) else {
        return nil
      }
      guard let place = try names(ofSnapshotsOf: layer).places[part] else { return nil }
      return try describe(.snapshot(layer.id, place), layers)
    }
  }

  /// What a view is, nil if the chain does not have it any more.
  package func view(_ id: ViewID) throws(ChainError) -> ViewDescription? {
    try withLayers { layers throws(ChainError) in try describe(id, layers) }
  }

  /// Opens a view, nil if the chain does not have it any more.
  ///
  /// It reads right until it is closed, whatever becomes of the chain. Takes no descriptor: its layers
  /// are those that the disk has open.
  package func openView(_ id: ViewID) throws(ChainError) -> DiskView? {
    try withLayers { layers throws(ChainError) in
      switch id {
      case .now: return DiskView(of: self)
      case .layer(let layer):
        guard let index = layers.index(of: layer), index > 0 else { return nil }
        let lower = Array(layers.backing.layers[(index - 1)...])
        return DiskView(
          id, of: self,
          HeldLayers(
            snapshot: nil, below: try BackingLayers(layers: lower, version: 0),
            clusterSize: lower[0].image.clusterSize, size: lower[0].image.virtualSize,
            mapBytes: configuration.mapCacheBytes, era: era))
      case .snapshot(let layer, let number):
        guard let index = layers.index(of: layer), let keeper = layers.layer(at: index),
          let snapshot = try HeldSnapshot(number, of: keeper)
        else { return nil }
        return DiskView(
          id, of: self,
          HeldLayers(
            snapshot: snapshot,
            below: try BackingLayers(layers: Array(layers.backing.layers[index...]), version: 0),
            clusterSize: keeper.image.clusterSize, size: snapshot.size,
            mapBytes: configuration.mapCacheBytes, era: era))
      }
    }
  }

  // MARK: - Under the gate

  private func describe(
    _ id: ViewID, _ layers: DiskLayers
  ) throws(ChainError) -> ViewDescription? {
    let index: Int
    var size: UInt64?
    switch id {
    case .now: index = 0
    case .layer(let layer):
      guard let found = layers.index(of: layer), found > 0 else { return nil }
      index = found
    case .snapshot(let layer, let number):
      guard let found = layers.index(of: layer), let keeper = layers.layer(at: found),
        let snapshot = try Self.snapshot(number, of: keeper)
      else { return nil }
      index = found
      size = snapshot.diskSize
    }
    guard let layer = layers.layer(at: index) else { return nil }
    let allocated =
      index == 0
      ? try layer.allocatedBytes() + layers.backing.allocatedBytes
      : layers.backing.allocatedBytes(from: index - 1)
    return ViewDescription(
      id: id, size: size ?? layer.image.virtualSize, allocatedBytes: allocated,
      clusterSize: layer.image.clusterSize)
  }

  private func names(ofSnapshotsOf layer: Layer) throws(ChainError) -> SnapshotNames {
    if layer.image.internalSnapshotCount == 0 { return SnapshotNames([], of: layer.id) }
    if let kept = snapshotNames.withLock({ $0 }), kept.layer == layer.id { return kept }
    let made = SnapshotNames(
      try Self.snapshots(of: layer).map { ($0.id, $0.name) }, of: layer.id)
    snapshotNames.withLock { $0 = made }
    return made
  }

  /// One snapshot of a layer, nil if it has no such.
  static func snapshot(_ number: Int, of layer: Layer) throws(ChainError) -> SnapshotPlace? {
    let snapshots = try snapshots(of: layer)
    return snapshots.indices.contains(number) ? snapshots[number] : nil
  }

  private static func snapshots(of layer: Layer) throws(ChainError) -> [SnapshotPlace] {
    guard let image = layer.use.image as? Qcow2Image else { return [] }
    return try onImage { () throws(ImageError) in try image.snapshotPlaces() }
  }
}
