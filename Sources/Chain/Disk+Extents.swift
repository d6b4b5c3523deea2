package import HostSystem
internal import ImageDriver

// Which layer has what, for people and scripts: the walk of a read, without moving bytes.

/// A run of the disk that one layer answers for in one way.
package struct DiskExtent: Sendable, Equatable {
  /// How the bytes are there.
  package enum Kind: Sendable, Equatable {
    /// No layer has them; they read zero.
    case unallocated
    /// A layer says that they are zero.
    case zero
    /// They are at this offset of the layer's file.
    case data(HostOffset)
    /// They are in compressed clusters of the layer.
    case compressed
  }

  /// Where it is on the disk.
  package var range: GuestRange
  /// How the bytes are there.
  package var kind: Kind
  /// Which layer answers, 0 for the active image; the lowest one where none has anything.
  package var depth: Int
}

extension Disk {
  /// The run that an offset inside the disk begins; it may go on in the next one.
  package func extent(at offset: GuestOffset) throws(ChainError) -> DiskExtent {
    checkInside(offset, 1)
    return try withLayers { layers throws(ChainError) in
      let limit = virtualSize - offset.rawValue
      let extent = try topmost(at: offset, upTo: limit, layers)
      return DiskExtent(
        range: GuestRange(offset: offset, length: extent.length),
        kind: Self.kind(of: extent.mapping),
        depth: extent.layer.flatMap { layers.index(of: $0.id) } ?? layers.backing.layers.count)
    }
  }

  /// What the topmost layer that has something at an offset has there, and how far that holds at least.
  func topmost(
    at offset: GuestOffset, upTo limit: UInt64, _ layers: DiskLayers
  ) throws(ChainError) -> BelowExtent {
    try map.extent(at: offset, upTo: limit, of: layers.active, over: layers.backing)
  }

  private static func kind(of mapping: Mapping) -> DiskExtent.Kind {
    switch mapping {
    case .unallocated: .unallocated
    case .zero: .zero
    case .data(let offset): .data(offset)
    case .compressed: .compressed
    }
  }
}
