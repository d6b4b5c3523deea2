internal import HostSystem
internal import ImageDriver

// One map for all backing layers.
//
// Backing layers do not change while they are open, so what lies where is worked out once for each
// granule (an aligned range of the disk, some MiB) and kept: a lookup costs the same at depth 1 and at
// depth 1000. The layers' own tables are read only while a granule is merged.
//
//     chain changes        what happens to the granules that are here
//     snapshot             nothing; the next lookup lays the one new layer over the old extents
//     rebase to a base     nothing; the next lookup asks the layers that are left again, for the
//                          extents alone whose layer has left
//     stream into a layer  nothing: what it gained reads as what was known before, from where it was
//     tables read anew     everything is merged again: what was known may be in no table on the host
//
// All are seen by comparing the chain's version, and the era of the tables, with those that the granule was
// merged for. The chain changes only under the exclusive side of the disk's gate and lookups run under the shared one,
// so no merge sees a chain change.
//
// A granule that cannot be merged, since a table of a layer is broken or cannot be read, is not kept. Then
// a lookup merges no more than it is asked for, and less until it gets there or is at the place itself:
// one broken entry hides what it names and nothing else.
//
// Memory is bounded: over its budget the map throws out granules that were not used since the clock
// hand last passed (second chance). A granule thrown out is merged again when it is needed.

/// A part of the disk, with the answer of one layer.
struct BelowExtent {
  /// The layer that answers, or nil if no layer has anything: that reads zero.
  var layer: Layer?
  /// Where the bytes are in that layer.
  var mapping: Mapping
  /// How far this holds.
  var length: UInt64
}

/// What the layers below the active image hold, by ranges.
final class MergedMap: Sendable {
  /// One granule with its merged extents.
  fileprivate struct Granule {
    var number: UInt64
    var extents: [GranuleExtent]
    /// The chain this was merged for.
    var version: UInt64
    /// The tables that this was merged from.
    var era: UInt64
    /// The topmost layer that was looked at.
    var top: LayerID
    var wasUsed: Bool

    var bytes: Int {
      MemoryLayout<Granule>.stride + extents.capacity * MemoryLayout<GranuleExtent>.stride
    }
  }

  fileprivate struct State {
    var places: [UInt64: Int] = [:]
    var granules: [Granule] = []
    var hand = 0
    var bytes = 0
    /// Granules that a thread is merging right now; others wait for it.
    var merging: Set<UInt64> = []
    // Counted where a granule is stored: a lookup that finds its answer counts nothing.
    var merges: UInt64 = 0
    var evictions: UInt64 = 0
  }

  /// Bytes of the disk that one granule describes.
  let granuleSize: UInt64
  private let budget: Int
  private let era: TableEra
  private let state = Monitor(State())

  /// Makes an empty map of at most about `budget` bytes.
  ///
  /// A granule is what one 4 KiB slice of an L2 table describes, within bounds: smaller ones would
  /// read the same slice of each layer again and again, larger ones would hold too many extents.
  init(clusterSize: Int, budget: Int, era: TableEra = TableEra()) {
    self.era = era
    granuleSize = UInt64(min(max(clusterSize * 512, 1 << 20), 32 << 20))
    self.budget = budget
  }

  /// What the layers hold at an offset, and for how many bytes, at most `limit`.
  func extent(
    at offset: GuestOffset, upTo limit: UInt64, in backing: BackingLayers
  ) throws(ChainError) -> BelowExtent {
    // A disk may be longer than what is below it by more granules than anybody can wait for.
    guard let first = backing.layers.first, offset < backing.end else {
      return BelowExtent(layer: nil, mapping: .unallocated, length: limit)
    }
    if offset >= backing.topEnd {
      return BelowExtent(
        layer: first, mapping: .zero, length: min(limit, backing.end - offset))
    }
    let top = first.id
    let number = offset.rawValue / granuleSize
    let inside = UInt32(offset.rawValue % granuleSize)
    let era = era.now
    while true {
      let found = state.wait { state -> Finding? in
        guard let place = state.places[number], state.granules[place].version == backing.version,
          state.granules[place].era == era
        else {
          // Nil waits: somebody else merges it.
          return state.merging.insert(number).inserted ? .toMerge : nil
        }
        state.granules[place].wasUsed = true
        let extents = state.granules[place].extents
        let index = Self.index(of: inside, in: extents)
        let end = index + 1 < extents.count ? UInt64(extents[index + 1].start) : granuleSize
        return .extent(extents[index], length: min(end - UInt64(inside), limit))
      }
      switch found {
      case .extent(let extent, let length):
        let layer = extent.layer.flatMap { backing.layer($0) }
        precondition((layer == nil) == (extent.layer == nil), "a layer left the chain unseen")
        return BelowExtent(
          layer: layer, mapping: extent.mapping.advanced(by: UInt64(inside - extent.start)),
          length: length)
      case .toMerge, nil:
        do { try merge(number, top: top, era, backing) } catch {
          let rest = granuleSize - UInt64(inside)
          return try narrowExtent(at: offset, upTo: min(limit, rest), in: backing)
        }
      }
    }
  }

  /// What `top`, or where it has nothing the layers below it, have at an offset, and how far that holds at
  /// least.
  func extent(
    at offset: GuestOffset, upTo limit: UInt64, of top: Layer, over backing: BackingLayers
  ) throws(ChainError) -> BelowExtent {
    // Where it has nothing it is asked anew for each granule: looking to the end of a large disk each time
    // takes the square of its size.
    let most = offset < backing.topEnd ? min(limit, 16 * granuleSize) : limit
    let own = try top.mapping(at: offset, upTo: most)
    if own.mapping != .unallocated {
      return BelowExtent(layer: top, mapping: own.mapping, length: own.length)
    }
    return try extent(at: offset, upTo: own.length, in: backing)
  }

  /// The answer for an offset whose granule cannot be merged; throws if the offset has none itself.
  private func narrowExtent(
    at offset: GuestOffset, upTo limit: UInt64, in backing: BackingLayers
  ) throws(ChainError) -> BelowExtent {
    var length = min(limit, 64 << 10)
    while true {
      do throws(ChainError) {
        var merge = ExtentMerge(range: GuestRange(offset: offset, length: length))
        for layer in backing.layers where !merge.isComplete {
          try merge.add(NewestTables(of: layer))
        }
        let extents = merge.finish()
        return BelowExtent(
          layer: extents[0].layer.flatMap { backing.layer($0) }, mapping: extents[0].mapping,
          length: extents.count > 1 ? UInt64(extents[1].start) : length)
      } catch {
        if length <= 512 { throw error }
        length = max(512, length / 2)
      }
    }
  }

  /// How many bytes the map takes now.
  var bytesUsed: Int { state.withLock { $0.bytes } }

  /// What the map takes, and how often a granule had to be merged.
  var figures: CacheFigures {
    state.withLock { state in
      CacheFigures(
        bytes: UInt64(state.bytes), limit: UInt64(clamping: budget), misses: state.merges,
        evictions: state.evictions)
    }
  }

  private enum Finding {
    case extent(GranuleExtent, length: UInt64)
    case toMerge
  }

  private static func index(of offset: UInt32, in extents: [GranuleExtent]) -> Int {
    var low = 0
    var high = extents.count
    while high - low > 1 {
      let middle = (low + high) / 2
      if extents[middle].start <= offset { low = middle } else { high = middle }
    }
    return low
  }

  // Runs without the lock: it reads tables of images.
  private func merge(
    _ number: UInt64, top: LayerID, _ era: UInt64, _ backing: BackingLayers
  ) throws(ChainError) {
    let earlier = state.withLock { state -> Granule? in
      guard let place = state.places[number], state.granules[place].era == era else { return nil }
      return state.granules[place]
    }
    do {
      let range = GuestRange(
        offset: GuestOffset(rawValue: number * granuleSize), length: granuleSize)
      var merge = ExtentMerge(range: range)
      // What a layer says about the granule is in the map from here on, and few of its tables serve two.
      // They go at once: those of all layers together would be the most memory that a deep chain takes.
      func add(_ layer: Layer) throws(ChainError) {
        let tables = NewestTables(of: layer)
        defer { tables.image.releaseTables() }
        try merge.add(tables)
      }
      for layer in backing.layers {
        if let earlier, layer.id <= earlier.top { break }
        try add(layer)
        if merge.isComplete { break }
      }
      if let earlier {
        merge.add(earlier.extents) { backing.layer($0) != nil }
        for layer in backing.layers where layer.id <= earlier.top {
          if merge.isComplete { break }
          try add(layer)
        }
      }
      let granule = Granule(
        number: number, extents: merge.finish(), version: backing.version, era: era,
        top: top, wasUsed: true)
      state.change { $0.store(granule, budget: budget) }
    } catch {
      state.change { _ = $0.merging.remove(number) }
      throw error
    }
  }
}

extension MergedMap.State {
  /// Puts a merged granule in place and throws out others until the budget holds.
  mutating func store(_ granule: MergedMap.Granule, budget: Int) {
    merging.remove(granule.number)
    merges += 1
    bytes += granule.bytes
    if let place = places[granule.number] {
      bytes -= granules[place].bytes
      granules[place] = granule
    } else {
      places[granule.number] = granules.count
      granules.append(granule)
    }
    // One granule always stays, or a budget of nothing would never answer.
    while bytes > budget, granules.count > 1 {
      if hand >= granules.count { hand = 0 }
      if granules[hand].wasUsed || granules[hand].number == granule.number {
        // A second chance; the new granule loses its mark too but is never thrown out here.
        granules[hand].wasUsed = false
        hand += 1
      } else {
        evict(hand)
      }
    }
  }

  private mutating func evict(_ place: Int) {
    evictions += 1
    bytes -= granules[place].bytes
    places[granules[place].number] = nil
    let last = granules.removeLast()
    if place < granules.count {
      granules[place] = last
      places[last.number] = place
    }
  }
}
