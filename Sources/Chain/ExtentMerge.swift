internal import HostSystem
internal import ImageDriver

// Laying the layers' tables over each other.
//
// A range of the disk is answered by the topmost layer that has something to say about it:
//
//     layer 2   |..AA....|      the part of layer 1 that is not covered shows through,
//     layer 1   |.BBB|          and where layer 1 ends the disk reads zero, for a layer that is
//     layer 0   |CCCCCCCC|      shorter than the one above it hides everything below its end
//     merged    |CBAA0000|      (zeroes that belong to layer 1, not to layer 0)
//
// The owner of each extent is kept, of the zeroes too: a stream to a base has to know whether what it
// finds stays below the base or goes with a layer that is dropped.

/// A run of a granule with one mapping in one layer; it ends where the next one starts.
struct GranuleExtent: Equatable {
  /// Bytes from the start of the granule.
  var start: UInt32
  /// The layer that answers, or nil where no layer has anything: that reads zero.
  var layer: LayerID?
  /// Where the bytes are in that layer.
  var mapping: Mapping
}

/// A layer as a merge sees it.
protocol MappingSource {
  /// Which layer it is.
  var id: LayerID { get }
  /// Where it ends.
  var end: GuestOffset { get }
  /// The mapping at an offset before the end, with its length, at most `limit`.
  func mapping(at offset: GuestOffset, upTo limit: UInt64) throws(ChainError) -> MappedExtent
}

/// Builds the extents of one range out of layers, topmost first.
struct ExtentMerge {
  /// A part of the range that no layer has answered yet.
  private struct Gap {
    var start: UInt64
    var end: UInt64
  }

  private let range: GuestRange
  private var gaps: [Gap]
  private var found: [GranuleExtent] = []

  /// Starts with nothing known about a range of less than 4 GiB.
  init(range: GuestRange) {
    precondition(range.length <= UInt64(UInt32.max))
    self.range = range
    gaps = range.isEmpty ? [] : [Gap(start: range.offset.rawValue, end: range.end.rawValue)]
  }

  /// Whether every byte of the range has an answer.
  var isComplete: Bool { gaps.isEmpty }

  /// Lets the next lower layer answer what is still open.
  mutating func add(_ layer: some MappingSource) throws(ChainError) {
    if gaps.isEmpty { return }
    let layerEnd = layer.end.rawValue
    let askEnd = min(range.end.rawValue, layerEnd)
    var open: [Gap] = []
    // The last answer, which may reach over many gaps: a sparse layer costs few questions.
    var known = Gap(start: 0, end: 0)
    var mapping = Mapping.unallocated
    for gap in gaps {
      var position = gap.start
      let stop = min(gap.end, layerEnd)
      while position < stop {
        if position < known.start || position >= known.end {
          let answer = try layer.mapping(
            at: GuestOffset(rawValue: position), upTo: askEnd - position)
          precondition(answer.length > 0 && answer.length <= askEnd - position)
          known = Gap(start: position, end: position + answer.length)
          mapping = answer.mapping
        }
        let end = min(known.end, stop)
        if mapping == .unallocated {
          if let last = open.last, last.end == position {
            open[open.count - 1].end = end
          } else {
            open.append(Gap(start: position, end: end))
          }
        } else {
          keep(position..<end, layer.id, mapping.advanced(by: position - known.start))
        }
        position = end
      }
      if position < gap.end { keep(position..<gap.end, layer.id, .zero) }
    }
    gaps = open
  }

  /// Lets extents of an earlier merge of the same range answer, except those of layers that left.
  mutating func add(_ earlier: [GranuleExtent], where isAlive: (LayerID) -> Bool) {
    var open: [Gap] = []
    var index = 0
    for gap in gaps {
      var position = gap.start
      while position < gap.end {
        while index + 1 < earlier.count, start(earlier[index + 1]) <= position { index += 1 }
        let extent = earlier[index]
        let extentEnd = index + 1 < earlier.count ? start(earlier[index + 1]) : range.end.rawValue
        let end = min(extentEnd, gap.end)
        if let layer = extent.layer, !isAlive(layer) {
          if let last = open.last, last.end == position {
            open[open.count - 1].end = end
          } else {
            open.append(Gap(start: position, end: end))
          }
        } else {
          keep(position..<end, extent.layer, extent.mapping.advanced(by: position - start(extent)))
        }
        position = end
      }
    }
    gaps = open
  }

  /// The extents of the whole range in order; what is still open belongs to no layer.
  consuming func finish() -> [GranuleExtent] {
    for gap in gaps { keep(gap.start..<gap.end, nil, .unallocated) }
    let order = found.indices.sorted { found[$0].start < found[$1].start }
    var result: [GranuleExtent] = []
    result.reserveCapacity(order.count)
    for index in order {
      let extent = found[index]
      if let last = result.last, last.layer == extent.layer,
        last.mapping.advanced(by: UInt64(extent.start - last.start)) == extent.mapping
      {
        continue
      }
      result.append(extent)
    }
    return result
  }

  private func start(_ extent: GranuleExtent) -> UInt64 {
    range.offset.rawValue + UInt64(extent.start)
  }

  private mutating func keep(_ bytes: Range<UInt64>, _ layer: LayerID?, _ mapping: Mapping) {
    let start = UInt32(bytes.lowerBound - range.offset.rawValue)
    found.append(GranuleExtent(start: start, layer: layer, mapping: mapping))
  }
}

extension Mapping {
  /// The mapping of the byte that lies further on in the same extent.
  ///
  /// A compressed cluster is named as a whole and says itself where it starts, so it stays the same.
  func advanced(by distance: UInt64) -> Mapping {
    switch self {
    case .data(let offset): .data(HostOffset(rawValue: offset.rawValue + distance))
    case .unallocated, .zero, .compressed: self
    }
  }
}
