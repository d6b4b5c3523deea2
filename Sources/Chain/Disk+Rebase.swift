internal import BlockIO
internal import HostSystem
internal import ImageDriver

// The end of a stream: the active image's header gets a new backing file, and the layers between
// are closed. Guest bytes are the same before and after; what may never happen is a header that says
// the new chain over clusters that are not on the disk, or that says something nobody can open.
//
//     1  every range is checked to be streamed, of internal snapshots too, by the tables alone
//     2  the string for the header is chosen and leads to the base's inode     nothing changed yet
//     3  flush                                          long, guests go on
//     -- gate, exclusive ------------------------------------------------------------------
//     4  flush again                                    short, nothing new comes in
//     5  header: new name into spare room, flush, flip, flush                  the image driver's
//     6  the chain in memory
//     -- end of gate ----------------------------------------------------------------------
//     7  the dropped layers' files are closed, which unlocks them, unless a view of them is open
//
// A crash before the flip of 5 leaves the old chain, after it the new one, and both hold the same
// bytes. If 5 fails, the old chain stays in memory, which is right whichever header is on the disk.

extension Disk {
  /// The string by which the active image would name a base, or nil for no base at all.
  ///
  /// It is the string of the layer above the base, made to lead to the base from the active image's
  /// own directory. A string that is asked for is taken if it leads to the base, and refused if not.
  package func backingString(
    for base: LayerID?, requested: String? = nil
  ) throws(ChainError) -> String? {
    guard let base else { return nil }
    // Lock: the gate is not held while the host is asked for paths: it might ask one that waits at it.
    let rule = try withLayers { layers throws(ChainError) in
      guard let layer = layers.backing.layer(base) else { throw gone(base, layers) }
      return BackingString(
        overlay: layers.active.path, base: layer.image.storage.identity, basePath: layer.path,
        namedAs: layer.namedAs, format: layer.image.formatName, files: files)
    }
    if let requested { return try rule.checked(requested) }
    return try rule.chosen()
  }

  /// Makes `base` the backing file of the active image, or drops all layers below it.
  ///
  /// Everything above the base has to be streamed before; the call is refused if it is not. When it
  /// returns, the new header is durable and the layers between are closed and unlocked, but for those
  /// that an open view still needs. When it throws, the disk goes on with the old chain. Nothing
  /// happens if the base is the backing file already and no other string is asked for.
  package func rebase(
    to base: LayerID?, backingString requested: String? = nil
  ) throws(ChainError) {
    if isReadOnly { throw .readOnly(disk: name) }
    let isThere = try withLayers { layers throws(ChainError) in
      layers.backing.layers.first?.id == base
    }
    if isThere, requested == nil { return }
    let checked = try checkStreamed(base: base)
    let string = try backingString(for: base, requested: requested)
    try flush()
    try changeBacking(to: base, string: string, checked)
  }

  /// What a check found streamed: a snapshot or a growth after it makes it void.
  struct Checked {
    fileprivate var active: LayerID
    fileprivate var size: UInt64
  }

  /// Steps 4 to 7 of a rebase, if the disk is the one that was checked.
  func changeBacking(
    to base: LayerID?, string: String?, _ checked: Checked
  ) throws(ChainError) {
    try changeLayers { layers throws(ChainError) in
      let image = try writable(layers)
      // Another active image has nothing of the stream; new bytes may show what lies below.
      guard layers.active.id == checked.active, image.virtualSize == checked.size else {
        throw .notStreamed(
          disk: name, range: GuestRange(offset: .zero, length: image.virtualSize))
      }
      let kept = try lowerLayers(from: base, layers)
      let reference = string.map { string in
        BackingReference(name: string, format: kept.first?.image.formatName)
      }
      // Made first: once the header names the new chain, nothing may fail any more.
      let backing = try BackingLayers(
        layers: renamed(kept, topmost: string), version: layers.backing.version + 1)
      try onImage { () throws(ImageError) in
        // Order: data and tables of everything that was streamed, then the header that relies on it.
        try image.flush()
        try image.setBacking(reference)
      }
      // The disk reads from them no more: the gate is held exclusively and the new chain is durable.
      // A view that is open keeps the files of its layers.
      for layer in layers.backing.layers.dropLast(kept.count) { layer.use.end() }
      return DiskLayers(active: layers.active, writable: image, backing: backing)
    }
  }

  // Once streamed, a range stays so: with layers below, the active image gives up no mapping, and
  // nobody else changes its snapshots. So the check needs no exclusive gate.
  func checkStreamed(base: LayerID?) throws(ChainError) -> Checked {
    let checked = try withLayers { layers throws(ChainError) in
      Checked(active: layers.active.id, size: layers.active.image.virtualSize)
    }
    for part in StreamPart.allCases {
      var position = GuestOffset(rawValue: 0)
      while true {
        let extents = try streamExtents(of: part, from: position, base: base, limit: 1024)
        guard let last = extents.last else { break }
        if let open = extents.first(where: { $0.kind != .skip }) {
          throw .notStreamed(disk: name, range: open.range)
        }
        position = last.range.end
      }
    }
    return checked
  }

  private func lowerLayers(
    from base: LayerID?, _ layers: DiskLayers
  ) throws(ChainError) -> [Layer] {
    guard let base else { return [] }
    guard layers.backing.layer(base) != nil else { throw gone(base, layers) }
    return layers.backing.layers.filter { $0.id <= base }
  }

  /// The same layers, the topmost of them known by the string that the active image has for it now.
  func renamed(_ layers: [Layer], topmost string: String?) -> [Layer] {
    guard let first = layers.first, let string else { return layers }
    let again = Layer(
      id: first.id, image: first.image, path: first.path, namedAs: string, use: first.use)
    return [again] + layers.dropFirst()
  }

  /// What is said of a layer that is looked for below the active image, and is not there.
  func gone(_ base: LayerID, _ layers: DiskLayers) -> ChainError {
    .noSuchLayer(
      disk: name, name: "number \(base.rawValue)",
      have: layers.backing.layers.prefix(16).map { PlacePath.fileName(of: $0.path) })
  }
}
