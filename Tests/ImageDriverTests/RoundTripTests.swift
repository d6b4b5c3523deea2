import BlockIO
import Foundation
import HostSystem
import TestSupport
import Testing

@testable import ImageDriver

/// Images that QEMU made, written here, judged by QEMU.
@Suite("Qcow2Image and QEMU", .tags(.qemu), .enabled(if: hasQemu))
struct RoundTripTests {
  struct Shape: Sendable, CustomTestStringConvertible {
    var options: String
    var size: Int
    var longest: Int
    var steps = 60
    var testDescription: String { options }
  }

  static let shapes: [Shape] = [
    Shape(options: "compat=1.1,cluster_size=512", size: 1 << 20, longest: 40_000),
    Shape(options: "compat=1.1,cluster_size=512,refcount_bits=64", size: 4 << 20, longest: 300_000),
    Shape(options: "compat=1.1,cluster_size=1024,refcount_bits=1", size: 1 << 20, longest: 40_000),
    Shape(options: "compat=1.1,cluster_size=4096,refcount_bits=2", size: 4 << 20, longest: 200_000),
    Shape(options: "compat=1.1,cluster_size=4096,refcount_bits=4", size: 4 << 20, longest: 200_000),
    Shape(options: "compat=1.1,cluster_size=8192,refcount_bits=8", size: 8 << 20, longest: 300_000),
    Shape(options: "compat=1.1", size: (32 << 20) + 512, longest: 2_000_000),
    Shape(options: "compat=1.1,refcount_bits=32", size: 32 << 20, longest: 2_000_000),
    Shape(options: "compat=1.1,lazy_refcounts=on", size: 8 << 20, longest: 500_000),
    Shape(options: "compat=1.1,cluster_size=2M", size: 33 << 20, longest: 5_000_000, steps: 30),
    Shape(
      options: "extended_l2=on,cluster_size=16k", size: (8 << 20) + 512, longest: 60_000, steps: 150
    ),
    Shape(options: "extended_l2=on", size: 32 << 20, longest: 500_000, steps: 120),
    Shape(options: "extended_l2=on,cluster_size=2M", size: (24 << 20) + 1536, longest: 3_000_000),
    Shape(options: "compat=0.10,cluster_size=512", size: (1 << 20) + 1024, longest: 40_000),
    Shape(options: "compat=0.10", size: 16 << 20, longest: 1_000_000),
    Shape(options: "compat=0.10,cluster_size=2M", size: 16 << 20, longest: 5_000_000, steps: 20),
  ]

  @Test(
    "random writes, zeroes and discards leave an image that QEMU reads alike and finds clean",
    arguments: shapes)
  func randomWork(_ shape: Shape) throws {
    let bench = try QemuBench()
    try bench.create(shape.options, size: shape.size)
    var work = Workload(Seed.generator("randomWork \(shape.options)"), size: shape.size)
    for _ in 0..<2 {
      let image = try bench.open()
      for _ in 0..<shape.steps { try work.step(image, longest: shape.longest) }
      #expect(try work.model.firstDifference(from: image.get(0, shape.size), at: 0) == nil)
      try bench.finish(image)
      #expect(try bench.check() == nil)
      #expect(try work.model.firstDifference(from: bench.flat(), at: 0) == nil)
    }
  }

  @Test(
    "an internal snapshot keeps its bytes while the disk is written",
    arguments: [
      "compat=1.1,cluster_size=4096", "compat=0.10,cluster_size=4096",
      "extended_l2=on,cluster_size=64k",
    ])
  func internalSnapshot(_ options: String) throws {
    let bench = try QemuBench()
    let size = 8 << 20
    try bench.create(options, size: size)
    try bench.io("write -P 17 0 3M", "write -P 23 5M 1M")
    try runSuccessfully("qemu-img", "snapshot", "-c", "before", bench.path)
    let before = try bench.flat()
    let image = try bench.open()
    #expect(image.internalSnapshotCount == 1)
    var work = Workload(Seed.generator("internalSnapshot"), size: size)
    work.model = ByteModel(bytes: before)
    for _ in 0..<80 { try work.step(image, longest: 200_000) }
    try bench.finish(image)
    #expect(try bench.check() == nil)
    #expect(try work.model.firstDifference(from: bench.flat(), at: 0) == nil)
    #expect(try bench.flat(["-l", "before"]) == before)
  }

  @Test("compressed clusters are read, and written anew", arguments: ["zlib", "zstd"])
  func compressed(_ method: String) throws {
    let bench = try QemuBench()
    let size = 4 << 20
    var random = Seed.generator("compressed \(method)")
    var content = [UInt8](repeating: 0, count: size)
    for start in stride(from: 0, to: size, by: 1000) where !random.oneIn(5) {
      let text = [UInt8](repeating: UInt8.random(in: 0...255, using: &random), count: 700)
      content.replaceSubrange(start..<min(start + 700, size), with: text.prefix(size - start))
    }
    let raw = bench.directory.file("in.raw")
    try Data(content).write(to: URL(fileURLWithPath: raw))
    try runSuccessfully(
      "qemu-img", "convert", "-c", "-f", "raw", "-O", "qcow2", "-o", "compression_type=\(method)",
      raw, bench.path)
    let image = try bench.open()
    var work = Workload(random, size: size)
    work.model = ByteModel(bytes: content)
    #expect(try work.model.firstDifference(from: image.get(0, size), at: 0) == nil)
    #expect(try image.get(70_000, 100) == Array(content[70_000..<70_100]))
    for _ in 0..<40 { try work.step(image, longest: 100_000) }
    #expect(try work.model.firstDifference(from: image.get(0, size), at: 0) == nil)
    try bench.finish(image)
    #expect(try bench.check() == nil)
    #expect(try work.model.firstDifference(from: bench.flat(), at: 0) == nil)
  }

  @Test("the refcount table grows when the image does")
  func refcountTableGrowth() throws {
    let bench = try QemuBench()
    let size = 24 << 20
    try bench.create("compat=1.1,cluster_size=512,refcount_bits=64", size: size)
    let image = try bench.open()
    var random = Seed.generator("refcountTableGrowth")
    let bytes = random.bytes(1 << 20)
    for start in stride(from: 0, to: size, by: 1 << 20) { try image.put(bytes, at: start) }
    try bench.finish(image)
    #expect(try bench.check() == nil)
    #expect(try bench.flat() == Array((0..<24).map { _ in bytes }.joined()))
  }

  @Test("the backing reference changes, and goes")
  func backing() throws {
    let bench = try QemuBench()
    try runSuccessfully(
      "qemu-img", "create", "-q", "-f", "qcow2", bench.directory.file("base.qcow2"), "1M")
    try runSuccessfully(
      "qemu-img", "create", "-q", "-f", "qcow2", "-b", "base.qcow2", "-F", "qcow2", bench.path)
    let image = try bench.open()
    #expect(image.backingReference == BackingReference(name: "base.qcow2", format: "qcow2"))
    let other = BackingReference(name: "./base.qcow2", format: "qcow2")
    try image.setBacking(other)
    #expect(image.backingReference == other)
    try bench.finish(image)
    #expect(try runSuccessfully("qemu-img", "info", bench.path).contains("file: ./base.qcow2"))
    let again = try bench.open()
    try again.setBacking(nil)
    try bench.finish(again)
    #expect(try !runSuccessfully("qemu-img", "info", bench.path).contains("backing"))
    #expect(try bench.check() == nil)
  }

  @Test("populating writes only what is unallocated, and zeroes only that")
  func populate() throws {
    let bench = try QemuBench()
    try bench.create("compat=1.1", size: (1 << 20) + 512)
    let image = try bench.open()
    let cluster = image.clusterSize
    try image.put([9], at: 3 * cluster)
    var position = 0
    var given: [GuestRange] = []
    while position < 6 * cluster {
      guard let ticket = try image.beginPopulate(guestRange(position, 6 * cluster - position))
      else { break }
      given.append(ticket.guest)
      position = Int(ticket.guest.end.rawValue)
      try image.storage.put(
        [UInt8](repeating: 5, count: Int(ticket.guest.length)), at: ticket.host.rawValue)
      try ticket.commit()
    }
    #expect(given == [guestRange(0, 3 * cluster), guestRange(4 * cluster, 2 * cluster)])
    #expect(try image.get(3 * cluster, 2) == [9, 0])
    #expect(try image.get(5 * cluster, 1) == [5])
    let size = Int(image.virtualSize)
    #expect(try image.populateZeroes(guestRange(0, size)) == UInt64(size - 6 * cluster))
    let isDone = try image.beginPopulate(guestRange(0, size)) == nil
    #expect(isDone)
    #expect(
      try image.mapping(at: GuestOffset(UInt64(6 * cluster)), upTo: 1000).mapping == .zero)
    try bench.finish(image)
    #expect(try bench.check() == nil)
  }

  @Test("a corrupt image opens for reading only, one that was not closed is repaired")
  func needsRepair() throws {
    try openMarked(2)
    try openMarked(1)
  }

  private func openMarked(_ bit: UInt8) throws {
    let bench = try QemuBench()
    try bench.create("compat=1.1", size: 1 << 20)
    let file = try HostFile.open(bench.path, access: .readWrite, locking: .none, role: .active)
    try file.put([bit], at: 79, intent: .metadata)
    file.close()
    if bit == 2 {
      #expect(throws: ImageError.self) { try bench.open() }
    } else {
      try bench.open().close()
      #expect(try bench.check() == nil)
    }
    let storage = try HostFile.open(bench.path, access: .readOnly, locking: .none, role: .backing)
    #expect(try Qcow2Image(storage: storage).get(0, 10) == [UInt8](repeating: 0, count: 10))
  }

  @Test("an external data file that nobody brought is named")
  func dataFileMissing() throws {
    let bench = try QemuBench()
    try bench.create("data_file=\(bench.directory.file("other.raw"))", size: 1 << 20)
    let error = #expect(throws: ImageError.self) { _ = try bench.open() }
    #expect(error?.kind == .unsupported)
    #expect(error?.description.contains("external data file") == true)
  }
}
