import HostSystem
import TestSupport

@testable import Chain

/// The first part of a disk, sector by sector: the bytes of those that can be read.
struct SectorModel {
  /// As much of a disk is looked at.
  static let window: UInt64 = 128 << 10
  private static let sector = 512

  /// The size of the whole disk.
  private(set) var size: UInt64 = 0
  private var bytes: [UInt8] = []
  private var isKnown: [Bool] = []

  init() {}

  /// What a disk reads as now.
  init(_ disk: Disk) {
    size = disk.virtualSize
    let count = Int(min(size, Self.window)) / Self.sector
    bytes = [UInt8](repeating: 0, count: count * Self.sector)
    isKnown = [Bool](repeating: false, count: count)
    var start = 0
    while start < count {
      // A run at once, and if it has a place that cannot be read, sector by sector.
      let run = start..<min(start + 8, count)
      if !read(run, of: disk) {
        for index in run { _ = read(index..<index + 1, of: disk) }
      }
      start = run.upperBound
    }
  }

  private mutating func read(_ sectors: Range<Int>, of disk: Disk) -> Bool {
    let range = sectors.lowerBound * Self.sector..<sectors.upperBound * Self.sector
    var part = [UInt8](repeating: 0xee, count: range.count)
    do {
      var span = part.mutableRawSpan
      try disk.read(into: &span, at: GuestOffset(UInt64(range.lowerBound)))
    } catch {
      trace("  sectors \(sectors): \(error)")
      return false
    }
    bytes.replaceSubrange(range, with: part)
    for index in sectors { isKnown[index] = true }
    return true
  }

  /// Where a step works, inside the window and the disk; at bytes if the step says so.
  func range(_ step: ImageStep) -> GuestRange {
    let end = UInt64(bytes.count)
    if end == 0 { return GuestRange(offset: .zero, length: 0) }
    let unit: UInt64 = step.place & 1 == 0 ? 1 : UInt64(Self.sector)
    let offset = UInt64(step.index) * unit % end
    let length = (step.value & 0x1f) * UInt64(Self.sector) + (unit == 1 ? step.value >> 5 & 511 : 0)
    return GuestRange(offset: GuestOffset(offset), length: min(length, end - offset))
  }

  /// Takes note of a write; nil for one that failed, so that nobody knows what is there.
  mutating func change(_ range: GuestRange, to new: [UInt8]?) {
    if range.isEmpty { return }
    let (start, end) = (Int(range.offset.rawValue), Int(range.end.rawValue))
    if let new {
      bytes.replaceSubrange(start..<end, with: new)
      // A write of a part of a sector tells nothing of the rest.
      for index in (start + Self.sector - 1)
        / Self.sector..<max(
          (start + Self.sector - 1) / Self.sector, end / Self.sector)
      { isKnown[index] = true }
    } else {
      for index in start / Self.sector...(end - 1) / Self.sector { isKnown[index] = false }
    }
  }

  /// Takes note of a larger disk: the new part is zero, or nobody knows what it is.
  mutating func grow(to size: UInt64, isKnown isZero: Bool) {
    let count = Int(min(size, Self.window)) / Self.sector
    bytes += [UInt8](repeating: 0, count: max(0, count * Self.sector - bytes.count))
    isKnown += [Bool](repeating: isZero, count: max(0, count - isKnown.count))
    self.size = size
  }

  /// Whether all that is known here can be read there, and is the same.
  func agrees(with other: SectorModel) -> Bool { difference(from: other) == nil }

  private func difference(from other: SectorModel) -> Int? {
    isKnown.indices.first { index in
      guard isKnown[index], index < other.isKnown.count else { return isKnown[index] }
      let place = index * Self.sector..<(index + 1) * Self.sector
      return !other.isKnown[index] || bytes[place] != other.bytes[place]
    }
  }

  /// Where two differ, for a message.
  static func - (one: SectorModel, other: SectorModel) -> String {
    guard let index = one.difference(from: other) else { return "not at all" }
    guard index < other.isKnown.count, other.isKnown[index] else {
      return "sector \(index) cannot be read"
    }
    return "sector \(index) has \(other.bytes[index * sector]) and not \(one.bytes[index * sector])"
  }

  /// Bytes that are not like those of another step.
  static func pattern(_ seed: UInt64, _ count: Int) -> [UInt8] {
    (0..<count).map { UInt8(truncatingIfNeeded: UInt64($0 / 512) &* 31 &+ seed >> 16 &+ 1) }
  }
}
