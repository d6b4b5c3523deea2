internal import BlockIO
package import HostSystem
internal import ImageDriver
internal import Synchronization

// Bringing bytes up into the internal snapshots of the active image.
//
// A snapshot reads through the layers below as the active image does, so a stream has to give it what
// it lacks before they go. It is the stream's plan over again, with the snapshot's tables in place of
// the active ones; snapshots that lack the same are filled together:
//
//     groups of the part     A: 1, 2    B: 3      (one L2 table each, or none; see SnapshotTables)
//     plan of A              [copy ][skip ][copy ]
//     plan of B              [copy        ][skip ]
//     runs                   [A, B ][B    ][A    ]     each read once, and written once if a refcount
//                                                      holds all its users
//
// Bytes are read first and written to clusters that nothing points to; the commit changes tables in
// memory, and the next flush makes them durable. What a snapshot has is never touched, so whoever comes
// again, after a crash too, finds only what is still missing.

/// What a stream brings bytes up into, one after the other.
package enum StreamPart: Sendable, CaseIterable {
  /// The disk itself.
  case disk
  /// The internal snapshots of the active image, all at once by guest offset.
  case snapshots
}

/// A range that each group of snapshots treats in one way.
struct SnapshotRun: Equatable {
  /// Whole clusters.
  var range: GuestRange
  /// What is done, by group.
  var kinds: [StreamKind]

  /// What is to be done at all.
  var kind: StreamKind {
    if kinds.contains(.copy) { return .copy }
    return kinds.contains(.zero) ? .zero : .skip
  }

  func groups(_ kind: StreamKind) -> [Int] { kinds.indices.filter { kinds[$0] == kind } }

  /// Lays plans over each other; what a plan does not reach, it skips.
  static func runs(of range: GuestRange, _ plans: [[StreamExtent]]) -> [SnapshotRun] {
    var runs: [SnapshotRun] = []
    var next = plans.map { _ in 0 }
    var position = range.offset
    while position < range.end {
      var run = SnapshotRun(range: GuestRange(from: position, to: range.end), kinds: [])
      var end = range.end
      for (number, plan) in plans.enumerated() {
        while next[number] < plan.count, plan[next[number]].range.end <= position {
          next[number] += 1
        }
        if next[number] == plan.count {
          run.kinds.append(.skip)
          continue
        }
        let extent = plan[next[number]]
        precondition(extent.range.contains(position), "a plan has gaps")
        run.kinds.append(extent.kind)
        end = min(end, extent.range.end)
      }
      run.range = GuestRange(from: position, to: end)
      if let last = runs.last, last.kinds == run.kinds {
        runs[runs.count - 1].range = GuestRange(from: last.range.offset, to: end)
      } else {
        runs.append(run)
      }
      position = end
    }
    return runs
  }
}

extension Disk {
  /// How many bytes a stream has to look at in a part; a part of an image without snapshots has none.
  package func streamLength(of part: StreamPart) throws(ChainError) -> UInt64 {
    switch part {
    case .disk: virtualSize
    case .snapshots:
      try withLayers { layers throws(ChainError) in
        guard let image = snapshotted(layers) else { return 0 }
        return try onImage { () throws(ImageError) in try image.snapshotEnd() }.rawValue
      }
    }
  }

  /// What a stream that keeps `base` has to do with a part from an offset on; see
  /// ``streamExtents(from:base:limit:)``.
  package func streamExtents(
    of part: StreamPart, from offset: GuestOffset, base: LayerID?, limit: Int
  ) throws(ChainError) -> [StreamExtent] {
    switch part {
    case .disk: try streamExtents(from: offset, base: base, limit: limit)
    case .snapshots: try snapshotExtents(from: offset, base: base, limit: limit)
    }
  }

  /// Brings a range of a part up into the active image as far as a stream that keeps `base` needs it.
  package func populate(
    _ part: StreamPart, _ range: GuestRange, base: LayerID?, pace: CopyPace = .full
  ) throws(ChainError) -> PopulateResult {
    switch part {
    case .disk: try populate(range, base: base, pace: pace)
    case .snapshots: try fillSnapshots(range, base: base, pace)
    }
  }

  private func snapshotted(_ layers: DiskLayers) -> Qcow2Image? {
    layers.active.image.internalSnapshotCount > 0 ? layers.active.image as? Qcow2Image : nil
  }

  // MARK: - Planning

  private func snapshotExtents(
    from offset: GuestOffset, base: LayerID?, limit: Int
  ) throws(ChainError) -> [StreamExtent] {
    var result: [StreamExtent] = []
    var position = offset
    var isAtEnd = false
    while !isAtEnd, result.count < limit {
      // In steps with a gate for each, so that whoever needs it exclusively gets in between.
      let runs = try withLayers { layers throws(ChainError) -> [SnapshotRun] in
        guard let image = snapshotted(layers) else { return [] }
        let cluster = UInt64(image.clusterSize)
        let start = position.roundedDown(to: cluster)
        let end = try onImage { () throws(ImageError) in try image.snapshotEnd() }
        if start >= end { return [] }
        let step = max(map.granuleSize * 32, cluster)
        let range = GuestRange(offset: start, length: min(step, end - start))
        let part = try onImage { () throws(ImageError) in try image.snapshotPart(range) }
        return try plan(part, of: image, base: base, layers)
      }
      for run in runs {
        if let last = result.last, last.kind == run.kind {
          result[result.count - 1].range = GuestRange(from: last.range.offset, to: run.range.end)
        } else {
          result.append(StreamExtent(range: run.range, kind: run.kind))
        }
      }
      isAtEnd = runs.isEmpty
      if let last = runs.last { position = last.range.end }
    }
    return result
  }

  /// What has to be done with a part of the snapshots, under the gate.
  private func plan(
    _ part: SnapshotPart, of image: Qcow2Image, base: LayerID?, _ layers: DiskLayers
  ) throws(ChainError) -> [SnapshotRun] {
    var plans: [[StreamExtent]] = []
    for group in part.groups {
      var plan = StreamPlan(
        from: part.range.offset, unit: UInt64(image.clusterSize), keepsBase: base != nil)
      var position = part.range.offset
      for missing in group.missing {
        plan.add(length: missing.offset - position, .active)
        position = missing.offset
        while position < missing.end {
          let below = try map.extent(at: position, upTo: missing.end - position, in: layers.backing)
          plan.add(length: below.length, answer(for: below, base: base))
          position += below.length
        }
      }
      plan.finish()
      plans.append(plan.extents)
    }
    return SnapshotRun.runs(of: part.range, plans)
  }

  // MARK: - Filling

  private func fillSnapshots(
    _ range: GuestRange, base: LayerID?, _ pace: CopyPace
  ) throws(ChainError) -> PopulateResult {
    var result = PopulateResult()
    var position = range.offset
    while position < range.end {
      pace.giveWay()
      position = try withLayers { layers throws(ChainError) in
        guard let image = snapshotted(layers) else { return range.end }
        let cluster = UInt64(image.clusterSize)
        let end = try onImage { () throws(ImageError) in try image.snapshotEnd() }
        let start = position.roundedDown(to: cluster)
        let stop = min(range.end.roundedUp(to: cluster), end)
        if start >= stop { return range.end }
        let step = max(pace.stepBytes / cluster * cluster, cluster)
        let piece = GuestRange(offset: start, length: min(step, stop - start))
        return try fill(piece, of: image, base: base, layers, &result)
      }
    }
    return result
  }

  /// Fills the start of a piece, and gives where it ended.
  private func fill(
    _ piece: GuestRange, of image: Qcow2Image, base: LayerID?, _ layers: DiskLayers,
    _ result: inout PopulateResult
  ) throws(ChainError) -> GuestOffset {
    defer { hasWrites.store(true, ordering: .relaxed) }
    var fill = try onImage { () throws(ImageError) in try image.beginFill(piece) }
    let part = fill.part
    for run in try plan(part, of: image, base: base, layers) {
      switch run.kind {
      case .skip: result.skipped += run.range.length
      case .zero where image.hasZeroClusters:
        fill.makeZero(run.range, for: run.groups(.zero))
        result.zeroed += run.range.length
      case .zero, .copy:
        // Groups with the same below them differ at most in whether they lack it.
        let groups = run.kinds.indices.filter { run.kinds[$0] != .skip }
        try copy(run.range, to: groups, of: image, layers, &fill, &result)
      }
    }
    // Order: the clusters hold all their bytes before any table can point to them.
    do { try fill.commit() } catch { throw .image(error) }
    return part.range.end
  }

  private func copy(
    _ range: GuestRange, to groups: [Int], of image: Qcow2Image, _ layers: DiskLayers,
    _ fill: inout SnapshotFill, _ result: inout PopulateResult
  ) throws(ChainError) {
    try ThreadScratch.withBuffer(.stream, byteCount: Int(range.length)) {
      buffer throws(ChainError) in
      try readBelow(into: &buffer, at: range.offset, layers.backing)
      let cluster = image.clusterSize
      var start = 0
      while start < buffer.byteCount {
        // Runs of clusters that are alike: all zero, or all to be written.
        let isZero = image.hasZeroClusters && Self.isZero(buffer.bytes, start, cluster)
        var end = start + cluster
        while end < buffer.byteCount,
          (image.hasZeroClusters && Self.isZero(buffer.bytes, end, cluster)) == isZero
        { end += cluster }
        let run = GuestRange(offset: range.offset + UInt64(start), length: UInt64(end - start))
        if isZero {
          fill.makeZero(run, for: groups)
          result.zeroed += run.length
        } else {
          for set in fill.sharing(groups) {
            let bytes = buffer.bytes.extracting(start..<end)
            if fill.hasParts {
              let shared: [GuestRange]
              do throws(ImageError) {
                shared = try fill.sharedWithActive(run, by: set[0])
              } catch { throw .image(error) }
              for cluster in shared {
                try giveOwnPlace(cluster.clamped(toSize: image.virtualSize), image, layers)
              }
              var own = bytes.copied()
              var span = own.mutableRawSpan
              do throws(ImageError) { try fill.keepOwn(run, of: set[0], in: &span) } catch {
                throw .image(error)
              }
              try write(own.rawSpan, to: set, at: run, of: image, &fill)
            } else {
              try write(bytes, to: set, at: run, of: image, &fill)
            }
          }
          result.copied += run.length
        }
        start = end
      }
    }
  }

  private static func isZero(_ bytes: RawSpan, _ start: Int, _ count: Int) -> Bool {
    bytes.extracting(start..<start + count).isAllZero
  }

  /// Writes a run of clusters for groups that have it in common.
  private func write(
    _ bytes: RawSpan, to groups: [Int], at run: GuestRange, of image: Qcow2Image,
    _ fill: inout SnapshotFill
  ) throws(ChainError) {
    var position = run.offset
    while position < run.end {
      let room: (range: GuestRange, host: HostOffset)
      do { room = try fill.claim(GuestRange(from: position, to: run.end), for: groups) } catch {
        throw .image(error)
      }
      let from = Int(position - run.offset)
      do {
        try image.data.write(
          bytes.extracting(from..<from + Int(room.range.length)), at: room.host)
      } catch { throw .storage(error) }
      position = room.range.end
    }
  }
}
