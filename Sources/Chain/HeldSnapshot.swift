internal import HostSystem
internal import ImageDriver

// An internal snapshot that is read while its image may be changing.
//
// Its bytes stay, its tables may not: a stream that fills snapshots gives one a table of its own and
// leaves the old one, which is then free for anything. `SnapshotImage` knows the tables of one moment,
// so another one is made whenever the image has changed them since:
//
//     fill      new tables are seen by lookups, then the count of changes moves, under the disk's gate,
//               shared; the old tables stay whole
//     flush     the new tables are durable; what was left is free once the gate was held exclusively
//     read      under the gate, shared: the count is as it was -> so is every table known from then
//
// What the tables of an earlier moment call unallocated is read from the layers below, which are held
// open, and has the same bytes as what was filled in from there.

/// An internal snapshot of a layer that stays readable.
final class HeldSnapshot: Sendable {
  private struct Known {
    var image: Qcow2Image
    var changes: UInt64
    var layer: Layer
  }

  /// The layer that keeps the snapshot.
  let keeper: Layer
  /// The size of the disk, fixed from here on.
  let size: UInt64
  private let number: Int
  private let known: Monitor<Known>

  /// The snapshot at a place of the layer's directory, nil if there is none.
  // Lock: the caller holds the gate, shared.
  init?(_ number: Int, of keeper: Layer) throws(ChainError) {
    guard let known = try Self.find(number, of: keeper) else { return nil }
    self.keeper = keeper
    self.number = number
    self.known = Monitor(known)
    size = known.layer.image.virtualSize
  }

  /// The snapshot as a layer, by tables that are true until the gate is left.
  // Lock: the caller holds the gate, shared.
  func layer() throws(ChainError) -> Layer {
    let known = known.withLock { $0 }
    if known.image === keeper.use.image, known.changes == known.image.snapshotChanges {
      return known.layer
    }
    // Only another program can have done that, to an image without locks.
    guard let found = try Self.find(number, of: keeper), found.layer.image.virtualSize >= size
    else {
      throw .image(
        .corrupt(path: keeper.path, reason: "an internal snapshot was changed while it was open"))
    }
    self.known.withLock { $0 = found }
    return found.layer
  }

  private static func find(_ number: Int, of keeper: Layer) throws(ChainError) -> Known? {
    guard let image = keeper.use.image as? Qcow2Image,
      let place = try Disk.snapshot(number, of: keeper)
    else { return nil }
    // Order: the count before the tables, so that it is never newer than they are.
    let changes = image.snapshotChanges
    let snapshot = try onImage { () throws(ImageError) in try SnapshotImage(place, of: image) }
    let layer = Layer(id: keeper.id, image: snapshot, path: keeper.path, namedAs: nil)
    return Known(image: image, changes: changes, layer: layer)
  }
}
