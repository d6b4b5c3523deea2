import HostSystem
import ImageDriver
import Testing

@testable import Chain

/// A layer whose units (of 4 bytes) have the mappings of a list; it may end anywhere.
struct ListedLayer: MappingSource {
  static let unit: UInt64 = 4

  var id: LayerID
  var end: GuestOffset
  /// One a unit: nil is unallocated, 0 a zero unit, any other number the unit's place in the file.
  var units: [UInt64?]
  /// Longest answer in units; real images end an answer at the end of a table.
  var longest = 3

  func meaning(_ unit: Int) -> Mapping {
    switch units[unit] {
    case nil: .unallocated
    case 0: .zero
    case .some(let place): .data(HostOffset(place * Self.unit))
    }
  }

  func mapping(at offset: GuestOffset, upTo limit: UInt64) throws(ChainError) -> MappedExtent {
    precondition(offset < end && limit > 0 && limit <= end - offset)
    let first = Int(offset.rawValue / Self.unit)
    let inside = offset.rawValue % Self.unit
    let start = meaning(first).advanced(by: inside)
    var last = first + 1
    while last < units.count, last - first < longest,
      meaning(last) == start.advanced(by: UInt64(last) * Self.unit - offset.rawValue)
    {
      last += 1
    }
    return MappedExtent(
      mapping: start, length: min(UInt64(last) * Self.unit - offset.rawValue, limit))
  }

  static func random(
    id: LayerID, size: UInt64, clusterUnits: Int, using random: inout SplitMix
  ) -> ListedLayer {
    var units: [UInt64?] = []
    var place: UInt64 = 1
    while UInt64(units.count) * unit < size {
      let kind = random.next() % 4
      for _ in 0..<clusterUnits {
        switch kind {
        case 0, 1: units.append(nil)
        case 2: units.append(0)
        default:
          units.append(place)
          place += 1
        }
      }
      if random.next() % 3 == 0 { place += 5 }
    }
    return ListedLayer(id: id, end: GuestOffset(size), units: units)
  }
}

/// Numbers that follow from a seed.
struct SplitMix: RandomNumberGenerator {
  var state: UInt64
  mutating func next() -> UInt64 {
    state &+= 0x9E37_79B9_7F4A_7C15
    var z = state
    z = (z ^ (z >> 30)) &* 0xBF58_476D_1CE4_E5B9
    z = (z ^ (z >> 27)) &* 0x94D0_49BB_1331_11EB
    return z ^ (z >> 31)
  }
}

/// What a walk down the layers says of one byte.
func walk(_ offset: GuestOffset, _ layers: [ListedLayer]) -> (LayerID?, Mapping) {
  for layer in layers {
    if offset >= layer.end { return (layer.id, .zero) }
    let unit = Int(offset.rawValue / ListedLayer.unit)
    let mapping = layer.meaning(unit).advanced(by: offset.rawValue % ListedLayer.unit)
    if mapping != .unallocated { return (layer.id, mapping) }
  }
  return (nil, .unallocated)
}

@Suite("Extent merge")
struct ExtentMergeTests {
  func expectWalk(
    _ extents: [GranuleExtent], _ range: GuestRange, _ layers: [ListedLayer], _ says: String
  ) {
    #expect(extents.first?.start == 0)
    for index in extents.indices {
      let start = UInt64(extents[index].start)
      let end = index + 1 < extents.count ? UInt64(extents[index + 1].start) : range.length
      #expect(start < end)
      for byte in start..<end {
        let (layer, mapping) = walk(range.offset + byte, layers)
        if extents[index].layer != layer
          || extents[index].mapping.advanced(by: byte - start) != mapping
        {
          Issue.record("\(says): byte \(range.offset + byte): \(extents[index])")
          return
        }
      }
    }
  }

  @Test("merged extents say what a walk down the layers says", arguments: 0..<200)
  func agreesWithWalk(seed: UInt64) throws {
    var random = SplitMix(state: seed)
    let count = Int(random.next() % 6) + 1
    let layers = (0..<count).map { index in
      ListedLayer.random(
        id: LayerID(rawValue: UInt32(count - index)), size: 60 + random.next() % 200,
        clusterUnits: [1, 2, 4, 8][Int(random.next() % 4)], using: &random)
    }
    let range = GuestRange(
      offset: GuestOffset(random.next() % 64), length: 32 + random.next() % 200)
    var merge = ExtentMerge(range: range)
    for layer in layers { try merge.add(layer) }
    expectWalk(merge.finish(), range, layers, "seed \(seed)")
  }

  @Test("an earlier merge with a layer on top and some gone is as a new one", arguments: 0..<200)
  func agreesAfterChange(seed: UInt64) throws {
    var random = SplitMix(state: seed &+ 1_000_000)
    let layers = (0..<6).map { index in
      ListedLayer.random(
        id: LayerID(rawValue: UInt32(6 - index)), size: 60 + random.next() % 200,
        clusterUnits: [1, 2, 4][Int(random.next() % 3)], using: &random)
    }
    let range = GuestRange(offset: GuestOffset(16), length: 160)
    // Layer 6 comes on top; of 5 to 1 some upper ones go.
    let kept = Int(random.next() % 5)
    var first = ExtentMerge(range: range)
    for layer in layers[1...] { try first.add(layer) }
    let earlier = first.finish()
    let after = [layers[0]] + layers.suffix(kept)
    var second = ExtentMerge(range: range)
    try second.add(layers[0])
    second.add(earlier) { id in after.contains { $0.id == id } }
    for layer in layers.suffix(kept) { try second.add(layer) }
    // Zeroes of what is gone are asked for again; everything else has to be exact.
    expectWalk(second.finish(), range, after, "seed \(seed)")
  }

  @Test("what lies beyond a layer's end is zero and belongs to that layer")
  func shortLayer() throws {
    let lower = ListedLayer(
      id: LayerID(rawValue: 0), end: GuestOffset(16), units: [1, 2, 3, 4])
    let short = ListedLayer(id: LayerID(rawValue: 1), end: GuestOffset(6), units: [nil, nil])
    var merge = ExtentMerge(range: GuestRange(offset: .zero, length: 16))
    try merge.add(short)
    try merge.add(lower)
    #expect(
      merge.finish() == [
        GranuleExtent(start: 0, layer: lower.id, mapping: .data(HostOffset(4))),
        GranuleExtent(start: 6, layer: short.id, mapping: .zero),
      ])
  }

  @Test("a range that no layer has belongs to none")
  func nobody() throws {
    let layer = ListedLayer(id: LayerID(rawValue: 0), end: GuestOffset(8), units: [nil, nil])
    var merge = ExtentMerge(range: GuestRange(offset: .zero, length: 8))
    try merge.add(layer)
    #expect(!merge.isComplete)
    #expect(merge.finish() == [GranuleExtent(start: 0, layer: nil, mapping: .unallocated)])
  }
}
