internal import HostSystem
internal import ImageDriver

/// The layers of a view that never changes, open for as long as it is.
///
/// They are the objects that the disk has: nothing is opened twice, the rules by which a chain is
/// opened have been kept, and a file that took a layer's name since is not taken for the layer.
final class HeldLayers: Sendable {
  /// The size of the disk that they make.
  let size: UInt64
  private let snapshot: HeldSnapshot?
  private let below: BackingLayers
  private let map: MergedMap

  /// What a view may keep of its map. Many views can be open at once, and a backup, which reads each
  /// place once and in order, needs no more.
  private static let mostMapBytes = 1 << 20

  /// A snapshot, if there is one, over layers; `clusterSize` is that of the topmost image.
  // Lock: the caller holds the gate, shared, so that no layer is closed meanwhile.
  init(
    snapshot: HeldSnapshot?, below: BackingLayers, clusterSize: Int, size: UInt64, mapBytes: Int,
    era: TableEra
  ) {
    self.snapshot = snapshot
    self.below = below
    self.size = size
    map = MergedMap(
      clusterSize: clusterSize, budget: min(mapBytes, Self.mostMapBytes), era: era)
    snapshot?.keeper.use.begin()
    for layer in below.layers { layer.use.begin() }
  }

  /// Lets go of the layers; those that nobody else uses are closed.
  func end() {
    snapshot?.keeper.use.end()
    for layer in below.layers { layer.use.end() }
  }

  /// What is at an offset, for at most `limit` bytes; under the disk's gate.
  func extent(at offset: GuestOffset, upTo limit: UInt64) throws(ChainError) -> BelowExtent {
    guard let snapshot else { return try map.extent(at: offset, upTo: limit, in: below) }
    return try map.extent(at: offset, upTo: limit, of: try snapshot.layer(), over: below)
  }
}
