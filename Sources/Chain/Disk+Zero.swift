package import HostSystem
internal import ImageDriver
internal import Synchronization

// Zeroes without bytes. The active image marks whole units of allocation as zero and says how far it
// got; it gets nowhere where a unit is only cut, or where its format has no zero clusters and
// something lies below. Those pieces are written as bytes, unless they read zero already.

extension Disk {
  /// Makes a range read zero; its space stays allocated where it is.
  package func writeZeroes(_ range: GuestRange) throws(ChainError) {
    try writeZeroes(range, mode: .keepAllocation, .write)
  }

  /// Gives up a range: it reads zero afterwards, also over a backing file, and its space goes back
  /// to the host unless the disk is configured to keep it.
  package func discard(_ range: GuestRange) throws(ChainError) {
    let mode: ZeroMode = configuration.discard == .unmap ? .unmap : .keepAllocation
    try writeZeroes(range, mode: mode, .unmap)
  }

  /// The same, counted as what the guest asked for.
  func writeZeroes(
    _ range: GuestRange, mode: ZeroMode, _ operation: GuestOperation
  ) throws(ChainError) {
    checkInside(range.offset, range.length)
    try serve(operation, bytes: Int(range.length)) { () throws(ChainError) in
      // In steps, so that a snapshot does not wait for the discard of a whole disk.
      var position = range.offset
      while position < range.end {
        let step = GuestRange(
          offset: position, length: min(range.end.rawValue - position.rawValue, 1 << 30))
        try withLayers { layers throws(ChainError) in
          try writeZeroes(step, mode: mode, layers)
        }
        position = step.end
      }
      if operation == .write { load.wrote(to: range.end.rawValue) }
    }
  }

  /// Makes a range read zero, under the gate.
  func writeZeroes(
    _ range: GuestRange, mode: ZeroMode, _ layers: DiskLayers
  ) throws(ChainError) {
    let image = try writable(layers)
    defer { hasWrites.store(true, ordering: .relaxed) }
    // With layers below, the image has to mark zeroes. What reads zero below now may stop doing so
    // when a stream drops a layer that is shorter than its neighbours.
    let below: BelowContents = layers.backing.layers.isEmpty ? .readsZero : .mayHaveData
    var position = range.offset
    while position < range.end {
      let rest = GuestRange(
        offset: position, length: range.end.rawValue - position.rawValue)
      let handled: UInt64
      do {
        handled = try image.writeZeroes(rest, mode: mode, below: below)
      } catch { throw .image(error) }
      if handled > 0 {
        position = position + handled
        continue
      }
      let unitEnd = (position + 1).roundedUp(to: layers.unit)
      let piece = GuestRange(
        offset: position, length: min(unitEnd, range.end) - position)
      if try !readsZero(piece, layers) {
        try writeZeroBytes(piece, layers)
      }
      position = piece.end
    }
  }

  private static let zeroBytes = [UInt8](repeating: 0, count: 64 << 10)

  private func writeZeroBytes(_ range: GuestRange, _ layers: DiskLayers) throws(ChainError) {
    var position = range.offset
    while position < range.end {
      let length = min(Int(range.end - position), Self.zeroBytes.count)
      // The array is never let go; the span of its bytes ends with the line.
      try unsafe write(Self.zeroBytes.span.bytes.extracting(0..<length), at: position, layers)
      position += UInt64(length)
    }
  }

  /// Whether tables alone tell that a range reads zero.
  private func readsZero(_ range: GuestRange, _ layers: DiskLayers) throws(ChainError) -> Bool {
    var position = range.offset
    while position < range.end {
      let rest = range.end.rawValue - position.rawValue
      let extent = try layers.active.mapping(at: position, upTo: rest)
      switch extent.mapping {
      case .zero: position = position + extent.length
      case .data, .compressed: return false
      case .unallocated:
        let below = try map.extent(at: position, upTo: extent.length, in: layers.backing)
        if below.isData { return false }
        position = position + below.length
      }
    }
    return true
  }
}

extension BelowExtent {
  /// Whether bytes have to be read to know what this holds.
  var isData: Bool {
    switch mapping {
    case .data, .compressed: true
    case .zero, .unallocated: false
    }
  }
}
