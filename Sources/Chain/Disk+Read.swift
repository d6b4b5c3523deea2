internal import BlockIO
package import HostSystem
internal import ImageDriver

// Reading asks first where the bytes are and moves them afterwards; the active image's mapping, then
// the merged map. No lock but the shared gate is held while bytes move.

extension Disk {
  /// Reads bytes of the disk, as many as the span holds.
  package func read(
    into bytes: inout MutableRawSpan, at offset: GuestOffset
  ) throws(ChainError) {
    checkInside(offset, UInt64(bytes.byteCount))
    try serve(.read, bytes: bytes.byteCount) { () throws(ChainError) in
      try withLayers { layers throws(ChainError) in
        try read(into: &bytes, at: offset, layers)
      }
    }
  }

  /// Reads through the disk, under the gate.
  func read(
    into bytes: inout MutableRawSpan, at offset: GuestOffset, _ layers: DiskLayers
  ) throws(ChainError) {
    var done = 0
    while done < bytes.byteCount {
      let position = offset + UInt64(done)
      let extent = try layers.active.mapping(
        at: position, upTo: UInt64(bytes.byteCount - done))
      let length = Int(extent.length)
      var part = bytes.slice(done..<done + length)
      if extent.mapping == .unallocated {
        try readBelow(into: &part, at: position, layers.backing)
      } else {
        try read(extent.mapping, of: layers.active, at: position, into: &part)
      }
      done += length
    }
  }

  /// Reads from one layer what it maps at an offset.
  func read(
    _ mapping: Mapping, of layer: Layer, at offset: GuestOffset, into bytes: inout MutableRawSpan
  ) throws(ChainError) {
    switch mapping {
    case .zero, .unallocated:
      bytes.fillWithZeroes()
    case .data:
      do { try layer.image.read(mapping, skip: 0, into: &bytes) } catch { throw .image(error) }
    case .compressed(let span):
      try inflated.read(
        span, of: layer, skip: Int(offset - span.clusterStart), into: &bytes)
    }
  }

  /// Reads what the layers below the active image hold.
  func readBelow(
    into bytes: inout MutableRawSpan, at offset: GuestOffset, _ backing: BackingLayers
  ) throws(ChainError) {
    var done = 0
    while done < bytes.byteCount {
      let position = offset + UInt64(done)
      let extent = try map.extent(
        at: position, upTo: UInt64(bytes.byteCount - done), in: backing)
      let length = Int(extent.length)
      var part = bytes.slice(done..<done + length)
      if let layer = extent.layer {
        try read(extent.mapping, of: layer, at: position, into: &part)
      } else {
        part.fillWithZeroes()
      }
      done += length
    }
  }
}
