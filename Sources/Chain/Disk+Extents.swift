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
      let own = try layers.active.mapping(at: offset, upTo: limit)
      if own.mapping != .unallocated {
        return DiskExtent(
          range: GuestRange(offset: offset, length: own.length), kind: Self.kind(of: own.mapping),
          depth: 0)
      }
      let below = try map.extent(at: offset, upTo: own.length, in: layers.backing)
      let index = below.layer.flatMap { layer in
        layers.backing.layers.firstIndex { $0.id == layer.id }
      }
      return DiskExtent(
        range: GuestRange(offset: offset, length: below.length), kind: Self.kind(of: below.mapping),
        depth: index.map { $0 + 1 } ?? layers.backing.layers.count)
    }
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
