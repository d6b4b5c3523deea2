internal import BlockIO
package import HostSystem
internal import ImageDriver
internal import Synchronization

// Bringing bytes up into the active image, for streaming.
//
// The layers below never change while the gate is held shared, so bytes are read first and a ticket
// is taken only for the write: a guest that wants to write the same cluster waits for one host write
// at most. The ticket is given out only for clusters that are still unallocated then; where a guest
// was faster, its bytes stay and ours are thrown away.
//
// Where the host lets files share blocks (XFS, btrfs), no byte is read or written: the ticket's range
// gets the blocks of the layer that has its bytes.

/// What a call to `populate` did with its range, in bytes of the disk.
package struct PopulateResult: Sendable, Equatable {
  /// Copied into the active image.
  package var copied: UInt64 = 0
  /// Made zero by tables.
  package var zeroed: UInt64 = 0
  /// In the active image already, written by a guest meanwhile, or not to be copied.
  package var skipped: UInt64 = 0

  /// Nothing done yet.
  package init() {}
}

extension Disk {
  /// Most bytes that are looked at under one hold of the gate, and shared by one call.
  private static let stepBytes: UInt64 = 8 << 20

  /// What a stream that keeps `base` has to do with the disk from an offset on.
  ///
  /// The offset is rounded down to a unit of allocation. The extents follow each other without gaps; there are
  /// at most about `limit` of them, and none if the offset is at or beyond the end.
  package func streamExtents(
    from offset: GuestOffset, base: LayerID?, limit: Int
  ) throws(ChainError) -> [StreamExtent] {
    var result: [StreamExtent] = []
    var position = offset
    let end = virtualSize
    while position.rawValue < end, result.count < limit {
      // In steps with a gate for each, so that snapshots get in between.
      let part = try withLayers { layers throws(ChainError) in
        let start = position.roundedDown(to: layers.unit)
        let length = min(max(map.granuleSize * 32, layers.unit), end - start.rawValue)
        let range = GuestRange(offset: start, length: length)
        return try plan(range, base: base, limit: limit, layers)
      }
      for extent in part {
        if let last = result.last, last.kind == extent.kind {
          result[result.count - 1].range = GuestRange(
            from: last.range.offset, to: extent.range.end)
        } else {
          result.append(extent)
        }
      }
      guard let last = part.last else { break }
      position = last.range.end
    }
    return result
  }

  /// Brings a range up into the active image as far as a stream that keeps `base` needs it.
  ///
  /// The range is rounded out to whole units of allocation. Several threads may populate at once, also ranges
  /// that touch. Where a guest writes meanwhile, its bytes stay.
  package func populate(
    _ range: GuestRange, base: LayerID?, pace: CopyPace = .full
  ) throws(ChainError) -> PopulateResult {
    checkInside(range.offset, range.length)
    var result = PopulateResult()
    var position = range.offset
    while position < range.end {
      position = try withLayers { layers throws(ChainError) in
        let unit = layers.unit
        let step = max(Self.stepBytes / unit * unit, unit)
        let piece = GuestRange(
          from: position.roundedDown(to: unit), to: range.end.roundedUp(to: unit)
        ).clamped(toSize: layers.active.image.virtualSize)
        let first = GuestRange(offset: piece.offset, length: min(step, piece.length))
        for extent in try plan(first, base: base, limit: .max, layers) {
          switch extent.kind {
          case .skip: result.skipped += extent.range.length
          case .zero: try populateZeroes(extent.range, pace, layers, &result)
          case .copy: try populateCopy(extent.range, pace, layers, &result)
          }
        }
        return first.end
      }
    }
    return result
  }

  /// What a stream has to do with a range that starts at a unit, under the gate.
  func plan(
    _ range: GuestRange, base: LayerID?, limit: Int, _ layers: DiskLayers
  ) throws(ChainError) -> [StreamExtent] {
    var plan = StreamPlan(
      from: range.offset, unit: layers.unit, keepsBase: base != nil)
    var position = range.offset
    while position < range.end, plan.extents.count < limit {
      let extent = try layers.active.mapping(
        at: position, upTo: range.end.rawValue - position.rawValue)
      let end = position + extent.length
      if extent.mapping != .unallocated {
        plan.add(length: extent.length, .active)
        position = end
      }
      while position < end {
        let below = try map.extent(
          at: position, upTo: end.rawValue - position.rawValue, in: layers.backing)
        plan.add(length: below.length, answer(for: below, base: base))
        position = position + below.length
      }
    }
    plan.finish()
    return plan.extents
  }

  func answer(for below: BelowExtent, base: LayerID?) -> StreamPlan.Answer {
    guard let layer = below.layer else { return .keptZero }
    if let base, layer.id <= base { return below.isData ? .keptData : .keptZero }
    return below.isData ? .droppedData : .droppedZero
  }

  private func populateZeroes(
    _ range: GuestRange, _ pace: CopyPace, _ layers: DiskLayers, _ result: inout PopulateResult
  ) throws(ChainError) {
    let image = try writable(layers)
    defer { hasWrites.store(true, ordering: .relaxed) }
    guard image.hasZeroClusters else { return try populateCopy(range, pace, layers, &result) }
    let zeroed: UInt64
    do { zeroed = try image.populateZeroes(range) } catch { throw .image(error) }
    result.zeroed += zeroed
    result.skipped += range.length - zeroed
  }

  private func populateCopy(
    _ range: GuestRange, _ pace: CopyPace, _ layers: DiskLayers, _ result: inout PopulateResult
  ) throws(ChainError) {
    let image = try writable(layers)
    defer { hasWrites.store(true, ordering: .relaxed) }
    let unit = layers.unit
    var rest = range
    while !rest.isEmpty {
      let below = try map.extent(at: rest.offset, upTo: rest.length, in: layers.backing)
      var done: UInt64 = 0
      // Beside what is shared, only what cannot be is read.
      var most = max(pace.stepBytes / unit * unit, unit)
      if let layer = below.layer, layer.sharing.isPossible {
        done = try populateShared(rest.offset, below, image, layers, &result)
        most = min(most, (below.length + unit - 1) / unit * unit)
      }
      if done == 0 {
        done = min(most, rest.length)
        let step = GuestRange(offset: rest.offset, length: done)
        try populateBytes(step, pace, image, layers, &result)
      }
      pace.giveWay()
      rest = GuestRange(from: rest.offset + done, to: range.end)
    }
  }

  /// Lets the active image share the blocks of an extent from its start on, and gives for how many bytes
  /// nothing is left to do: 0 where the bytes have to be read.
  private func populateShared(
    _ offset: GuestOffset, _ below: BelowExtent, _ image: any WritableImage, _ layers: DiskLayers,
    _ result: inout PopulateResult
  ) throws(ChainError) -> UInt64 {
    guard let layer = below.layer, case .data(let source) = below.mapping else { return 0 }
    let whole = GuestRange(offset: offset, length: below.length / layers.unit * layers.unit)
    if whole.isEmpty { return 0 }
    let ticket: WriteTicket?
    do { ticket = try image.beginPopulate(whole) } catch { throw .image(error) }
    guard let ticket else {
      result.skipped += whole.length
      return whole.length
    }
    // A cluster that has to move brings along neighbours, which are not in this extent.
    let guest = ticket.guest
    if guest.offset < offset || guest.end > whole.end { return 0 }
    let isShared = try onStorage { () throws(StorageError) in
      try image.data.share(
        from: layer.image.data, at: source + (guest.offset - offset), to: ticket.host,
        length: guest.length)
    }
    layer.sharing.note(isShared: isShared)
    if !isShared { return 0 }
    // Order: as in `fill`, the range has its bytes before any table can point to them; a flush makes
    // shared blocks durable as it does written ones.
    do { try ticket.commit() } catch { throw .image(error) }
    result.skipped += guest.offset - offset
    result.copied += guest.length
    return guest.end - offset
  }

  private func populateBytes(
    _ range: GuestRange, _ pace: CopyPace, _ image: any WritableImage, _ layers: DiskLayers,
    _ result: inout PopulateResult
  ) throws(ChainError) {
    // Whole units are written; what lies beyond the end of the disk is written as zeroes.
    let unit = Int(layers.unit)
    let byteCount = (Int(range.length) + unit - 1) / unit * unit
    try ThreadScratch.withBuffer(.stream, byteCount: byteCount) { buffer throws(ChainError) in
      var inside = buffer.slice(0..<Int(range.length))
      try readBelow(into: &inside, at: range.offset, layers.backing)
      pace.giveWay()
      var beyond = buffer.slice(Int(range.length)..<byteCount)
      beyond.fillWithZeroes()
      var position = 0
      while position < byteCount {
        // Runs of units that are alike: all zero, or all to be written.
        let first = buffer.bytes.extracting(position..<position + unit)
        let isZero = image.hasZeroClusters && first.isAllZero
        var end = position + unit
        while end < byteCount {
          let next = buffer.bytes.extracting(end..<end + unit)
          if (image.hasZeroClusters && next.isAllZero) != isZero { break }
          end += unit
        }
        let run = GuestRange(
          offset: range.offset + UInt64(position),
          length: min(UInt64(end), range.length) - UInt64(position))
        if isZero {
          try populateZeroes(run, pace, layers, &result)
        } else {
          try populate(run, from: buffer.bytes.extracting(position..<end), image, layers, &result)
        }
        position = end
      }
    }
  }

  /// Writes a run of units wherever the active image still has none.
  private func populate(
    _ run: GuestRange, from bytes: RawSpan, _ image: any WritableImage, _ layers: DiskLayers,
    _ result: inout PopulateResult
  ) throws(ChainError) {
    var position = run.offset
    while position < run.end {
      let rest = GuestRange(offset: position, length: run.end.rawValue - position.rawValue)
      let ticket: WriteTicket?
      do { ticket = try image.beginPopulate(rest) } catch { throw .image(error) }
      guard let ticket else {
        result.skipped += rest.length
        return
      }
      // A cluster that has to move brings its neighbours along; they count as skipped.
      let start = max(ticket.guest.offset, position)
      let end = min(ticket.guest.end, run.offset + UInt64(bytes.byteCount))
      result.skipped += start - position
      let part = Int(start - run.offset)..<Int(end - run.offset)
      try fill(ticket, with: bytes.extracting(part), at: start, image, layers)
      let counted = min(end, run.end)
      result.copied += counted - start
      position = counted
    }
  }
}
