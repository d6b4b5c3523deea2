import BlockIO
import Foundation
import HostSystem
import Qcow2Format
import TestSupport
import Testing

@testable import ImageDriver

let hasNbd = ToolAvailability.has(["qemu-img", "qemu-io", "qemu-nbd"])

@Suite("Persistent bitmaps and QEMU", .tags(.qemu), .enabled(if: hasNbd))
struct BitmapTests {
  struct Shape: Sendable, CustomTestStringConvertible {
    var cluster: Int
    var size: Int
    var granularities: [UInt64]
    var testDescription: String { "cluster \(cluster), \(size) bytes, \(granularities)" }
  }

  static let shapes = [
    Shape(cluster: 512, size: (5 << 20) + 512, granularities: [512, 4096]),
    Shape(cluster: 4096, size: (9 << 20) + 1536, granularities: [512, 1024, 1 << 31]),
    Shape(cluster: 65536, size: 10 << 20, granularities: [65536]),
    Shape(cluster: 65536, size: (40 << 20) + 512, granularities: [1 << 20, 1 << 16]),
    Shape(cluster: 2 << 20, size: (33 << 20) - 512, granularities: [512, 2 << 20]),
    Shape(cluster: 65536, size: 512, granularities: [512, 1 << 31]),
  ]

  @Test(
    "after writes, zeroes and discards QEMU finds exactly their granules, over several opens",
    arguments: shapes)
  func exact(_ shape: Shape) throws {
    let bench = try QemuBench()
    try bench.create("cluster_size=\(shape.cluster)", size: shape.size)
    for granularity in shape.granularities {
      try bench.bitmap("--add", "-g", "\(granularity)", "b\(granularity)")
    }
    try bench.bitmap("--add", "--disable", "off")
    var models = shape.granularities.map {
      DirtyModel(granularity: $0, size: UInt64(shape.size))
    }
    var random = Seed.generator("bitmaps \(shape)")
    for round in 0..<3 {
      let image = try bench.open()
      for _ in 0..<12 {
        let offset = Int.random(in: 0..<shape.size, using: &random)
        let count = Int.random(in: 1...min(30_000, shape.size - offset), using: &random)
        for index in models.indices { models[index].touch(UInt64(offset), UInt64(count)) }
        switch Int.random(in: 0..<4, using: &random) {
        case 0: try image.zero(offset, count, .unmap)
        case 1: try image.zero(offset, count, .keepAllocation, below: .mayHaveData)
        default: try image.put(random.bytes(count), at: offset)
        }
        if random.oneIn(5) { try image.settle() }
      }
      #expect(try DirtyBitmap.flags(of: bench.path)["off"] == [])
      try bench.finish(image)
      for (granularity, model) in zip(shape.granularities, models) {
        let found = try DirtyBitmap.ranges(of: bench.path, name: "b\(granularity)")
        #expect(found == model.ranges, "round \(round), granularity \(granularity)")
      }
      #expect(try DirtyBitmap.ranges(of: bench.path, name: "off") == [])
      #expect(try bench.check() == nil)
    }
    let flags = try DirtyBitmap.flags(of: bench.path)
    #expect(flags.filter { $0.key != "off" }.allSatisfy { $0.value == ["auto"] })
  }

  @Test("bits that QEMU stored stay, and QEMU goes on with ours")
  func together() throws {
    let bench = try QemuBench()
    try bench.create("cluster_size=64k", size: 64 << 20)
    try bench.bitmap("--add", "-g", "4k", "b")
    try bench.io("write 0 10000")
    let image = try bench.open()
    try image.put([1], at: 1 << 20)
    try bench.finish(image)
    try bench.io("write 2M 1")
    #expect(
      try DirtyBitmap.ranges(of: bench.path, name: "b") == [
        0..<12288, 1 << 20..<(1 << 20) + 4096, 2 << 20..<(2 << 20) + 4096,
      ])
    #expect(try bench.check() == nil)
  }

  @Test("a cluster of ones takes no room, and gives up the room it had")
  func ones() throws {
    let bench = try QemuBench()
    try bench.create("cluster_size=512", size: 5 << 20)
    try bench.bitmap("--add", "-g", "512", "b")
    var image = try bench.open()
    try image.put([1], at: 0)
    try bench.finish(image)
    // One cluster holds the bits of 2 MiB.
    #expect(try bench.stored().table("b").map { $0 > 1 } == [true, false, false])
    image = try bench.open()
    try image.zero(0, 4 << 20, .unmap)
    try bench.finish(image)
    #expect(try bench.stored().table("b") == [1, 1, 0])
    #expect(try DirtyBitmap.ranges(of: bench.path, name: "b") == [0..<4 << 20])
    #expect(try bench.check() == nil)
    image = try bench.open()
    try image.put([1], at: 3 << 20)
    try image.put([1], at: (5 << 20) - 1)
    try bench.finish(image)
    #expect(
      try DirtyBitmap.ranges(of: bench.path, name: "b") == [
        0..<4 << 20, (5 << 20) - 512..<5 << 20,
      ])
    #expect(try bench.check() == nil)
  }

  @Test("an image that is only read, streamed into or preallocated keeps its bitmaps as they are")
  func untouched() throws {
    let bench = try QemuBench()
    try bench.create("cluster_size=4k", size: 1 << 20)
    try bench.bitmap("--add", "-g", "4k", "b")
    try bench.io("write 0 4096")
    let image = try bench.open()
    _ = try image.get(0, 4096)
    guard let populated = try image.beginPopulate(guestRange(8192, 4096)) else {
      Issue.record("nothing to populate")
      return
    }
    try image.storage.put([UInt8](repeating: 5, count: 4096), at: populated.host.rawValue)
    try populated.commit()
    #expect(try image.populateZeroes(guestRange(16384, 8192)) == 8192)
    let step = try image.beginAllocate(guestRange(32768, 4096))
    switch consume step {
    case .inPlace: Issue.record("nothing was allocated there")
    case .allocate(let ticket):
      try image.storage.put([UInt8](repeating: 0, count: 4096), at: ticket.host.rawValue)
      try ticket.commit()
    }
    try image.flush()
    #expect(try DirtyBitmap.flags(of: bench.path) == ["b": ["auto"]])
    try bench.finish(image)
    #expect(try DirtyBitmap.ranges(of: bench.path, name: "b") == [0..<4096])
    #expect(try bench.check() == nil)
  }

  @Test("without a clean close a bitmap is inconsistent, and stays so")
  func inconsistent() throws {
    let bench = try QemuBench()
    try bench.create("cluster_size=4k", size: 1 << 20)
    try bench.bitmap("--add", "b")
    try bench.bitmap("--add", "--disable", "off")
    var image = try bench.open()
    #expect(try DirtyBitmap.flags(of: bench.path) == ["b": ["auto"], "off": []])
    try image.put([1], at: 5000)
    #expect(try DirtyBitmap.flags(of: bench.path) == ["b": ["in-use", "auto"], "off": []])
    try image.flush()
    image.storage.close()
    let entry = try bench.stored().entry("b")
    for _ in 0..<2 {
      image = try bench.open()
      try image.put([1], at: 70_000)
      try bench.finish(image)
      #expect(try bench.stored().entry("b") == entry)
    }
    #expect(throws: (any Error).self) { try DirtyBitmap.ranges(of: bench.path, name: "b") }
    #expect(try DirtyBitmap.ranges(of: bench.path, name: "off") == [])
    image = try bench.open()
    do {
      _ = try image.grown(to: 2 << 20)
      Issue.record("it grew")
    } catch { #expect(error.description.contains("bitmap b: it is inconsistent")) }
    try bench.finish(image)
    #expect(try run("qemu-img", "resize", bench.path, "2M").status == 1)
    #expect(try bench.check() == nil)
    try bench.bitmap("--remove", "b")
    image = try bench.open()
    try bench.finish(try image.grown(to: 2 << 20))
    #expect(try DirtyBitmap.ranges(of: bench.path, name: "off") == [])
    #expect(try bench.check() == nil)
  }

  @Test("an image that was closed may be written to again, and notes again")
  func closedTwice() throws {
    let bench = try QemuBench()
    try bench.create("cluster_size=4k", size: 1 << 20)
    try bench.bitmap("--add", "-g", "4k", "b")
    let image = try bench.open()
    try image.put([1], at: 0)
    try image.close()
    #expect(try DirtyBitmap.flags(of: bench.path) == ["b": ["auto"]])
    try image.put([1], at: 40960)
    #expect(try DirtyBitmap.flags(of: bench.path) == ["b": ["in-use", "auto"]])
    try bench.finish(image)
    #expect(
      try DirtyBitmap.ranges(of: bench.path, name: "b") == [0..<4096, 40960..<45056])
    #expect(try bench.check() == nil)
  }

  @Test(
    "a grown disk has grown bitmaps, clean in the new part",
    arguments: [
      // The table has room; needs more entries in its cluster; needs more clusters.
      (65536, 65536, 10 << 20, 20 << 20), (512, 512, (2 << 20) + 512, 9 << 20),
      (512, 512, 5 << 20, 150 << 20), (512, 65536, 1 << 20, 120 << 20),
    ],
    // What was claimed ahead of the growth shares bytes of refcounts with what comes after it.
    [1, 16])
  func grow(
    _ shape: (cluster: Int, granularity: Int, size: Int, larger: Int), refcountBits: Int
  ) throws {
    let (cluster, granularity, size, larger) = shape
    let bench = try QemuBench()
    try bench.create("cluster_size=\(cluster),refcount_bits=\(refcountBits)", size: size)
    try bench.bitmap("--add", "-g", "\(granularity)", "off")
    var off = DirtyModel(granularity: UInt64(granularity), size: UInt64(size))
    try bench.io("write \(size - 512) 512")
    off.touch(UInt64(size - 512), 512)
    try bench.bitmap("--disable", "off")
    try bench.bitmap("--add", "-g", "\(granularity)", "b")
    var model = DirtyModel(granularity: UInt64(granularity), size: UInt64(size))
    var image = try bench.open()
    try image.put([1, 2, 3], at: size - 4)
    model.touch(UInt64(size - 4), 3)
    image = try image.grown(to: UInt64(larger))
    #expect(try DirtyBitmap.flags(of: bench.path) == ["b": ["auto"], "off": []])
    model.size = UInt64(larger)
    off.size = UInt64(larger)
    try image.withoutRecording { try image.zero(size, 65536, .unmap) }
    try image.put([7], at: larger - 1)
    model.touch(UInt64(larger - 1), 1)
    try bench.finish(image)
    #expect(try DirtyBitmap.ranges(of: bench.path, name: "b") == model.ranges)
    #expect(try DirtyBitmap.ranges(of: bench.path, name: "off") == off.ranges)
    #expect(try bench.check() == nil)
  }

  @Test("a bitmap that would be too large keeps the disk as it is")
  func growTooFar() throws {
    let bench = try QemuBench()
    try bench.create("cluster_size=64k", size: 1 << 20)
    try bench.bitmap("--add", "-g", "512", "b")
    let image = try bench.open()
    do {
      _ = try image.grown(to: (2 << 40) + 65536)
      Issue.record("it grew")
    } catch { #expect(error.description.contains("bitmap b: it would be too large")) }
    try bench.finish(image)
    #expect(try bench.check() == nil)
  }

  // MARK: - Directories that cannot be kept

  @Test(
    "a directory that breaks the format is given up by the first write and not by opening",
    arguments: ["type", "flags", "extra", "table", "cluster", "extension", "shared"])
  func givenUp(_ what: String) throws {
    let bench = try QemuBench()
    try bench.create("cluster_size=64k", size: 1 << 20)
    try bench.bitmap("--add", "b")
    try bench.io("write 0 64k")
    let header = try bench.stored().header
    let directory = try #require(try header.bitmapDirectory()).offset
    let table = try bench.stored().entry("b").tableOffset
    let file = try HostFile.open(bench.path, access: .readWrite, locking: .none, role: .active)
    switch what {
    case "type": try file.put([2], at: directory + 16)
    case "flags": try file.put([0x12], at: directory + 15)
    // The name becomes extra data of eight bytes and a name of one.
    case "extra": try file.put([0, 1, 0, 0, 0, 5], at: directory + 18)
    case "table": try file.put([0x7f], at: directory)
    case "cluster": try file.put([3], at: table + 7)
    case "shared":
      // A guest's cluster is at the table's place, and both are counted: nothing that check minds.
      let l2 = L1Entry(rawValue: try file.readEntries(1, at: header.l1TableOffset)[0])
      let block = try file.readEntries(1, at: header.refcountTableOffset)[0]
      try file.writeEntries([table], at: l2.tableOffset + 8)
      try file.put([0, 2], at: block + (table >> 16) * 2)
    default:
      let place = try #require(
        try file.bytes(at: 0, count: 65536).firstRange(of: [0x23, 0x85, 0x28, 0x75])
      ).lowerBound
      try file.put([9], at: UInt64(place + 12))
    }
    file.close()
    let autoclear = {
      try HostFile.open(bench.path, access: .readOnly, locking: .none, role: .backing)
        .bytes(at: 88, count: 8)
    }
    let image = try bench.open()
    #expect(try autoclear().last == 1)
    try image.put([1], at: 0)
    #expect(try autoclear() == [UInt8](repeating: 0, count: 8))
    try bench.finish(image)
    #expect(try bench.flat().prefix(2) == [1, 0xcd])
  }

  @Test("extra data that does not matter, or in a bitmap that notes nothing, is left as it is")
  func extraData() throws {
    for flags in [6, 0, 4, 1] as [UInt8] {
      let bench = try QemuBench()
      try bench.create("cluster_size=64k", size: 1 << 20)
      try bench.bitmap("--add", "namelong")
      let directory = try #require(try bench.stored().header.bitmapDirectory()).offset
      let file = try HostFile.open(bench.path, access: .readWrite, locking: .none, role: .active)
      try file.put([flags], at: directory + 15)
      try file.put([0, 4, 0, 0, 0, 4], at: directory + 18)
      file.close()
      let before = try bench.bytes().bytes(directory + 16, 16)
      let image = try bench.open()
      try image.put([1], at: 70_000)
      try bench.finish(image)
      #expect(try bench.bytes().bytes(directory + 16, 16) == before)
      let stored = try bench.stored()
      #expect(try stored.entry("long").flags.rawValue == UInt32(flags))
      #expect(try stored.granules("long") == (flags == 6 ? [1] : []))
      #expect(try bench.bytes().bytes(88, 8).last == 1)
    }
  }

  private func tracker(
    _ header: ImageHeader, _ storage: any BlockStorage,
    maximumBytes: UInt64 = BitmapTracker.maximumBytes
  ) throws(ImageError) -> BitmapTracker? {
    let marks = ImageMarks(storage: storage, header: header)
    return try BitmapTracker(
      header: header,
      allocator: ClusterAllocator(storage: storage, header: header, marks: marks),
      maximumBytes: maximumBytes)
  }

  @Test("bitmaps whose bits would take too much memory are refused, all together")
  func tooMuchMemory() throws {
    let bench = try QemuBench()
    try bench.create("cluster_size=64k", size: 64 << 20)
    for name in ["b0", "b1"] { try bench.bitmap("--add", "-g", "512", name) }
    try bench.bitmap("--add", "-g", "512", "--disable", "off")
    let storage = try HostFile.open(bench.path, access: .readOnly, locking: .none, role: .backing)
    let header = try ImageHeader.read(from: storage)
    // A bit for each 512 bytes, and a word more for each bitmap.
    let needed: UInt64 = 2 * (64 << 20) / 4096 + 16
    #expect(
      try tracker(header, storage, maximumBytes: needed)?.recorders.count
        == 2)
    do {
      _ = try tracker(header, storage, maximumBytes: needed - 1)
      Issue.record("opened")
    } catch { #expect(error.description.contains("more than 1 GiB")) }
  }

  @Test("memory for bits is refused before a table is read")
  func refusedBeforeTables() throws {
    let bench = try QemuBench()
    try bench.create("cluster_size=64k", size: 64 << 20)
    try bench.bitmap("--add", "-g", "512", "b")
    let storage = MemoryStorage(content: try bench.bytes())
    let stored = try StoredBitmaps(storage)
    try storage.put([UInt8](repeating: 0xff, count: 8), at: stored.entry("b").tableOffset)
    // With the table, its bitmap would be given up.
    #expect(try tracker(stored.header, storage) == nil)
    #expect(throws: ImageError.self) {
      _ = try tracker(stored.header, storage, maximumBytes: 1000)
    }
  }

  @Test("only the autoclear bits that nobody keeps are cleared")
  func autoclear() throws {
    let bench = try QemuBench()
    try bench.create("cluster_size=64k", size: 1 << 20)
    try bench.bitmap("--add", "b")
    let file = try HostFile.open(bench.path, access: .readWrite, locking: .none, role: .active)
    try file.put([0x80, 0, 0, 0, 0, 0, 0, 0x05], at: 88)
    file.close()
    let image = try bench.open()
    try image.put([1], at: 0)
    try bench.finish(image)
    #expect(try bench.bytes().bytes(88, 8) == [0, 0, 0, 0, 0, 0, 0, 1])
    #expect(try DirtyBitmap.ranges(of: bench.path, name: "b") == [0..<65536])
  }

  @Test("a change of the backing reference leaves the bitmaps in force")
  func backing() throws {
    let bench = try QemuBench()
    try runSuccessfully(
      "qemu-img", "create", "-q", "-f", "qcow2", bench.directory.file("base.qcow2"), "1M")
    try runSuccessfully(
      "qemu-img", "create", "-q", "-f", "qcow2", "-b", "base.qcow2", "-F", "qcow2", bench.path)
    try bench.bitmap("--add", "-g", "4k", "b")
    let image = try bench.open()
    try image.put([1], at: 4096)
    for name in ["./base.qcow2", nil] {
      try image.setBacking(name.map { BackingReference(name: $0, format: "qcow2") })
      try image.put([1], at: 40960)
    }
    try bench.finish(image)
    #expect(try DirtyBitmap.ranges(of: bench.path, name: "b") == [4096..<8192, 40960..<45056])
    #expect(try bench.check() == nil)
  }
}
