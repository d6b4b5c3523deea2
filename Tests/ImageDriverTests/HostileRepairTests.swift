import BlockIO
import HostSystem
import TestSupport
import Testing

@testable import ImageDriver
@testable import Qcow2Format

@Suite("A check of hostile tables")
struct HostileRepairTests {
  private static let cluster: UInt64 = 512

  /// An image with one cluster of data, and its header.
  private func image() throws -> (storage: MemoryStorage, header: ImageHeader) {
    let storage = MemoryStorage()
    var options = ImageBuilder.Options(virtualSize: 32 << 10)
    options.clusterSize = Int(Self.cluster)
    try ImageBuilder.create(on: storage, options)
    let image = try Qcow2Image(storage: storage)
    try image.put([UInt8](repeating: 7, count: 512), at: 0)
    try image.close()
    return (storage, try ImageHeader.read(from: storage))
  }

  private func entry(_ storage: MemoryStorage, at offset: UInt64) throws -> UInt64 {
    try storage.readEntries(1, at: offset)[0]
  }

  @Test("new refcounts never take a place behind the file that an entry names", arguments: 0..<6)
  func placesBehindEnd(distance: UInt64) throws {
    let (storage, header) = try image()
    let table = L1Entry(rawValue: try entry(storage, at: header.l1TableOffset)).tableOffset
    let end = (try storage.size() + Self.cluster - 1) / Self.cluster * Self.cluster
    try storage.writeEntries(
      [end + (distance + 1) * Self.cluster | EntryBits.copied], at: table + 8)
    try storage.writeEntries(
      [try entry(storage, at: header.refcountTableOffset) | 1], at: header.refcountTableOffset)
    let reader = try Qcow2Image(storage: storage)
    let before = try reader.get(0, 1024)
    _ = try ImageCheck.repair(storage: storage, .all)
    #expect(try ImageHeader.read(from: storage).refcountTableOffset != header.refcountTableOffset)
    #expect(try Qcow2Image(storage: storage).get(0, 1024) == before)
  }

  @Test("places behind the file are found in runs that touch, lie over each other, or are far")
  func outsideClusters() {
    var outside = OutsideClusters()
    for run: Range<UInt64> in [9..<12, 3..<5, 4..<6, 6..<7, 20..<21, 20..<21] { outside.add(run) }
    outside.add(1 << 40..<1 << 41)
    let sorted = outside.sorted()
    let found = (0..<30).filter { sorted.contains($0) }
    #expect(found == [3, 4, 5, 6, 9, 10, 11, 20])
    #expect(sorted.isComplete)
  }

  @Test("more places behind the file than are remembered are told of")
  func tooManyOutside() {
    var outside = OutsideClusters()
    for index in 0...OutsideClusters.limit {
      let start = UInt64(2 * index)
      outside.add(start..<start + 1)
    }
    #expect(!outside.isComplete && !outside.sorted().isComplete)
  }
}
