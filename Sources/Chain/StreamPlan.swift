package import HostSystem

// Which bytes a stream has to bring into the active image.
//
// The active image takes whole units of allocation (a cluster, or a part of one), the layers below
// answer in runs of any size. A unit is
//
//     skipped   if the active image has it, or if every byte of it comes from the base or lower,
//               or from nowhere;
//     zero      if a dropped layer answers for a part of it and all of it reads zero;
//     copied    otherwise, as a whole, with the bytes that come from the base.
//
// When the stream keeps no base, a zero unit is skipped too: with nothing below it reads zero.
// Pure: runs go in, decisions come out, in order and aligned to units.

/// What a stream does with a range of the disk.
package enum StreamKind: Sendable, Equatable {
  /// Its bytes are copied into the active image.
  case copy
  /// It is marked as zero in the active image.
  case zero
  /// Nothing is to be done.
  case skip
}

/// A range of the disk, in whole units of the active image, that a stream treats alike.
package struct StreamExtent: Sendable, Equatable {
  /// The range; only the one at the end of the disk may end inside a unit.
  package var range: GuestRange
  /// What happens to it.
  package var kind: StreamKind

  /// An extent with both its parts.
  package init(range: GuestRange, kind: StreamKind) {
    self.range = range
    self.kind = kind
  }
}

/// Decides by units what a stream does with runs that come in order.
struct StreamPlan {
  /// Who answers for a run, and whether it reads zero without looking at bytes.
  struct Answer: OptionSet {
    let rawValue: UInt8
    /// The active image has it.
    static let active = Answer(rawValue: 1)
    /// It reads zero and stays so when the layers above the base are dropped.
    static let keptZero = Answer(rawValue: 2)
    /// It holds bytes of the base or of a layer below.
    static let keptData = Answer(rawValue: 4)
    /// It reads zero because of a layer that is to be dropped.
    static let droppedZero = Answer(rawValue: 8)
    /// It holds bytes of a layer that is to be dropped.
    static let droppedData = Answer(rawValue: 16)
  }

  /// What was decided so far.
  private(set) var extents: [StreamExtent] = []

  private let unit: UInt64
  private let keepsBase: Bool
  private var position: GuestOffset
  private var unitStart: GuestOffset
  private var seen: Answer = []

  /// Starts at the start of a cluster.
  init(from start: GuestOffset, unit: UInt64, keepsBase: Bool) {
    self.unit = unit
    self.keepsBase = keepsBase
    position = start
    unitStart = start
    precondition(start.rawValue.isMultiple(of: self.unit))
  }

  /// Takes the next run.
  mutating func add(length: UInt64, _ answer: Answer) {
    var left = length
    while left > 0 {
      let inUnit = position.rawValue - unitStart.rawValue
      if inUnit == 0, left >= unit {
        // Whole units of one kind need no bookkeeping, however many there are.
        let whole = left / unit * unit
        seen = answer
        position = GuestOffset(rawValue: position.rawValue + whole)
        decide()
        left -= whole
      } else {
        let step = min(left, unit - inUnit)
        seen.formUnion(answer)
        position = GuestOffset(rawValue: position.rawValue + step)
        if inUnit + step == unit { decide() }
        left -= step
      }
    }
  }

  /// Decides the unit that the end of the disk cuts.
  mutating func finish() {
    if position > unitStart { decide() }
  }

  private mutating func decide() {
    let kind = self.kind
    let range = GuestRange(
      offset: unitStart, length: position.rawValue - unitStart.rawValue)
    if let last = extents.last, last.kind == kind {
      extents[extents.count - 1].range = GuestRange(
        offset: last.range.offset, length: last.range.length + range.length)
    } else {
      extents.append(StreamExtent(range: range, kind: kind))
    }
    unitStart = position
    seen = []
  }

  private var kind: StreamKind {
    if seen.contains(.active) { return .skip }
    if seen.isDisjoint(with: [.droppedZero, .droppedData]) { return .skip }
    if !seen.isDisjoint(with: [.keptData, .droppedData]) { return .copy }
    return keepsBase ? .zero : .skip
  }
}
