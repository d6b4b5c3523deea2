package import HostSystem
internal import ImageDriver

// Where the chain has data. Zero clusters and what no layer has are holes; nobody looks at bytes.

extension Disk {
  /// The first offset at or after this one that some layer holds data for, nil if there is none.
  package func nextData(from offset: GuestOffset) throws(ChainError) -> GuestOffset? {
    try find(data: true, from: offset)
  }

  /// The first offset at or after this one that reads zero by the tables; the end of the disk
  /// counts as a hole. Nil at or beyond the end.
  package func nextHole(from offset: GuestOffset) throws(ChainError) -> GuestOffset? {
    if offset.rawValue >= virtualSize { return nil }
    return try find(data: false, from: offset) ?? GuestOffset(rawValue: virtualSize)
  }

  /// What the files of all layers take on the host.
  package func allocatedBytes() throws(ChainError) -> UInt64 {
    try withLayers { layers throws(ChainError) in
      try layers.active.allocatedBytes() + layers.backing.allocatedBytes
    }
  }

  private func find(data wanted: Bool, from offset: GuestOffset) throws(ChainError) -> GuestOffset?
  {
    try find(data: wanted, from: offset, end: virtualSize) {
      position, limit, layers throws(ChainError) in
      let extent = try topmost(at: position, upTo: limit, layers)
      return (extent.isData, extent.length)
    }
  }

  /// The first offset from one on, before `end`, where `run` tells of data, or of none.
  func find(
    data wanted: Bool, from offset: GuestOffset, end: UInt64,
    run: (GuestOffset, UInt64, DiskLayers) throws(ChainError) -> (isData: Bool, length: UInt64)
  ) throws(ChainError) -> GuestOffset? {
    var position = offset
    while position.rawValue < end {
      // One gate for each run: a search through a large hole must not hold up a snapshot.
      let (isData, length) = try withLayers { layers throws(ChainError) in
        try run(position, end - position.rawValue, layers)
      }
      if isData == wanted { return position }
      position = position + length
    }
    return nil
  }
}
