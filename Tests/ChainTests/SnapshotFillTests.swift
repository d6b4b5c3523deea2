import Foundation
import HostSystem
import TestSupport
import Testing

@testable import Chain

/// An overlay with internal snapshots on two layers, made by QEMU, and what its snapshots read.
struct SnapshottedChain {
  struct Shape: Sendable, CustomTestStringConvertible {
    var options: String
    /// What QEMU compresses: whole clusters, not too many of them in one host cluster.
    var compressed = ["write -c -P 7 512k 64k"]
    /// The narrowest refcounts cannot share clusters, so QEMU takes snapshots of empty disks only.
    var isEmpty = false
    var grows = false
    var keepsBase = false
    var testDescription: String {
      options + (keepsBase ? ", to the base" : "") + (grows ? ", grown" : "")
    }
  }

  let bench: Workbench
  let names: [String]
  /// The bytes of each snapshot, as long as its disk.
  private(set) var snapshots: [[UInt8]] = []
  let active: [UInt8]
  let below: [[UInt8]]
  static let size = 3 << 20

  init(_ shape: Shape) throws {
    bench = try Workbench()
    try bench.qemuImg("create", "-f", "qcow2", "-o", "cluster_size=4k", "base", "4M")
    try bench.qemuIO(
      "base", ["write -P 1 0 1M", "write -P 2 1500k 900k", "write -c -P 3 2500k 64k"])
    try bench.qemuImg("create", "-f", "qcow2", "-b", "base", "-F", "qcow2", "mid", "\(Self.size)")
    try bench.qemuIO(
      "mid",
      ["write -P 4 200k 300k", "write -z 800k 200k", "write -P 5 2100k 40k", "write -z 2200k 9k"])
    try bench.qemuImg(
      "create", "-f", "qcow2", "-o", shape.options, "-b", "mid", "-F", "qcow2", "top",
      "\(Self.size)")
    var names = ["one", "two", "three", "four"]
    let take = { [bench] (name: String) in
      _ = try bench.qemuImg("snapshot", "-c", name, "top")
    }
    if shape.isEmpty {
      try take("one")
      try take("two")
      try bench.qemuIO("top", ["write -P 6 100k 200k"])
      names = ["one", "two"]
    } else {
      // Shared and not shared: the first has no table at all, two and three are the same.
      try take("one")
      try bench.qemuIO(
        "top", shape.compressed + ["write -P 8 300k 70k", "write -z 1664k 64k"])
      try take("two")
      try take("three")
      try bench.qemuIO("top", ["write -P 9 310k 20k", "write -P 10 1M 100k", "discard 2M 256k"])
      if shape.grows {
        try bench.qemuImg("resize", "top", "\(Self.size + (1 << 20) + 512)")
        try bench.qemuIO("top", ["write -P 11 3100k 40k"])
      }
      try take("four")
      try bench.qemuIO("top", ["write -P 12 2300k 50k"])
    }
    self.names = names
    active = try bench.flatBytes(bench.path("top"))
    below = [try fileBytes(bench.path("base")), try fileBytes(bench.path("mid"))]
    for name in names {
      let bytes = try read(name)
      snapshots.append(Array(bytes.prefix(name == "four" ? bytes.count : Self.size)))
    }
  }

  /// A snapshot as QEMU reads it; as long as the disk is now.
  func read(_ name: String) throws -> [UInt8] {
    let flat = bench.path("flat.raw")
    try bench.qemuImg("convert", "-f", "qcow2", "-O", "raw", "-l", name, "top", flat)
    return try fileBytes(flat)
  }

  /// Everything reads as before, for QEMU, and nothing is damaged or leaks.
  func expectUnchanged(active: [UInt8]? = nil, mayLeak: Bool = false) throws {
    if !mayLeak { try bench.expectClean(bench.path("top")) }
    for (name, bytes) in zip(names, snapshots) {
      let found = Array(try read(name).prefix(bytes.count))
      #expect(firstDifference(found, bytes) == nil, "snapshot \(name)")
    }
    let flat = try bench.flatBytes(bench.path("top"))
    #expect(firstDifference(flat, active ?? self.active) == nil)
    #expect(try fileBytes(bench.path("base")) == below[0])
    #expect(try fileBytes(bench.path("mid")) == below[1])
  }

  func open() throws -> Disk {
    try Disk.open(DeviceConfiguration(name: "vda", image: .qcow2(path: bench.path("top"))))
  }
}

@Suite("Streams of images with internal snapshots", .enabled(if: Workbench.hasTool("qemu-img")))
struct SnapshotFillTests {
  typealias Shape = SnapshottedChain.Shape

  static let shapes: [Shape] =
    [
      "cluster_size=512", "cluster_size=4k", "cluster_size=64k",
      "cluster_size=4k,refcount_bits=64",
      "cluster_size=4k,compat=0.10", "cluster_size=64k,compat=0.10",
      "cluster_size=16k,extended_l2=on", "cluster_size=64k,extended_l2=on",
    ].flatMap { options in
      [Shape(options: options), Shape(options: options, keepsBase: true)]
    } + [
      Shape(options: "cluster_size=2M", compressed: []),
      Shape(options: "cluster_size=2M", compressed: [], keepsBase: true),
      Shape(options: "cluster_size=4k,refcount_bits=4", compressed: ["write -c -P 7 512k 8k"]),
      Shape(options: "cluster_size=4k,refcount_bits=1", isEmpty: true),
      Shape(options: "cluster_size=4k,refcount_bits=1", isEmpty: true, keepsBase: true),
      Shape(options: "cluster_size=4k,refcount_bits=2", isEmpty: true),
      Shape(options: "cluster_size=4k", grows: true),
      Shape(options: "cluster_size=64k", grows: true),
      Shape(options: "cluster_size=64k", grows: true, keepsBase: true),
    ]

  @Test("every snapshot reads the same after a stream as before", arguments: shapes)
  func keepsSnapshots(_ shape: Shape) throws {
    let chain = try SnapshottedChain(shape)
    let disk = try chain.open()
    let base = shape.keepsBase ? try disk.findLayer(named: "base") : nil
    for (name, bytes) in zip(chain.names, chain.snapshots) {
      #expect(firstDifference(try disk.bytes(ofSnapshot: name), bytes) == nil, "\(name)")
    }
    // The layers below are still needed by the snapshots.
    _ = try disk.populate(GuestRange(offset: .zero, length: disk.virtualSize), base: base)
    #expect(throws: ChainError.self) { try disk.rebase(to: base) }
    let filled = try disk.fillSnapshots(base: base)
    #expect(filled.copied > 0)
    let again = try disk.fillSnapshots(base: base)
    #expect(again.copied == 0 && again.zeroed == 0)
    #expect(again.skipped == (try disk.streamLength(of: .snapshots)))
    try disk.rebase(to: base)
    for (name, bytes) in zip(chain.names, chain.snapshots) {
      #expect(firstDifference(try disk.bytes(ofSnapshot: name), bytes) == nil, "\(name)")
    }
    try disk.close()
    try chain.expectUnchanged()
    let info = try chain.bench.qemuImg("info", "top")
    #expect(info.contains("backing file: base") == shape.keepsBase)
  }

  @Test("the active disk does not stay behind in a cluster of which its snapshot has a part")
  func sharedParts() throws {
    let bench = try Workbench()
    try bench.qemuImg("create", "-f", "qcow2", "base", "256k")
    try bench.qemuIO("base", ["write -P 1 0 256k"])
    try bench.qemuImg(
      "create", "-f", "qcow2", "-o", "cluster_size=16k,extended_l2=on", "-b", "base", "-F",
      "qcow2", "top")
    try bench.qemuIO("top", ["write -P 2 20k 4k", "write -P 3 40k 1k"])
    try bench.qemuImg("snapshot", "-c", "one", "top")
    // The rest of the clusters: nothing is left to be streamed for the disk, all of it for the snapshot.
    try bench.qemuIO("top", ["write -z 16k 4k", "write -z 24k 8k", "write -z 32k 8k"])
    let active = try bench.flatBytes(bench.path("top"))
    let disk = try Disk.open(
      DeviceConfiguration(name: "vda", image: .qcow2(path: bench.path("top"))))
    let snapshot = try disk.bytes(ofSnapshot: "one")
    try disk.streamAll()
    #expect(firstDifference(try disk.bytes(ofSnapshot: "one"), snapshot) == nil)
    try disk.close()
    try bench.expectClean(bench.path("top"))
    #expect(firstDifference(try bench.flatBytes(bench.path("top")), active) == nil)
  }

  @Test("what has no room in one refcount is copied, what has is shared")
  func sharing() throws {
    var sizes: [Int] = []
    for bits in [1, 16] {
      let chain = try SnapshottedChain(
        Shape(options: "cluster_size=4k,refcount_bits=\(bits)", isEmpty: true))
      let disk = try chain.open()
      try disk.streamAll()
      try disk.close()
      try chain.expectUnchanged()
      let info = try chain.bench.qemuImg("info", "--output=json", "top")
      let size = try #require(info.firstMatch(of: #/"actual-size": ([0-9]+)/#)?.1)
      sizes.append(try #require(Int(size)))
    }
    // Two snapshots of 2 MiB or so.
    #expect(sizes[0] > sizes[1] + (1 << 20))
  }

  @Test("a guest that writes during the fill has its bytes, and the snapshots have theirs")
  func beside() throws {
    let chain = try SnapshottedChain(Shape(options: "cluster_size=4k"))
    let disk = try chain.open()
    let model = Monitor(chain.active)
    let guest = Thread {
      var random = SeededGenerator(seed: 11)
      for _ in 0..<300 {
        let start = Int.random(in: 0..<SnapshottedChain.size - 1, using: &random)
        let count = Int.random(in: 1...min(9000, SnapshottedChain.size - start), using: &random)
        let bytes = random.bytes(count)
        try? disk.put(bytes, at: UInt64(start))
        model.change { $0.replaceSubrange(start..<start + count, with: bytes) }
        if random.oneIn(20) { try? disk.flush() }
      }
      model.change { $0.append(0) }
    }
    guest.start()
    // In small pieces, from two threads.
    let other = Thread {
      for offset in stride(from: 0 as UInt64, to: 3 << 20, by: 24 << 10) {
        _ = try? disk.populate(
          .snapshots, GuestRange(offset: GuestOffset(offset), length: 8192), base: nil)
      }
      model.change { $0.append(0) }
    }
    other.start()
    for offset in stride(from: 0 as UInt64, to: 3 << 20, by: 64 << 10) {
      _ = try disk.populate(
        .snapshots, GuestRange(offset: GuestOffset(offset), length: 64 << 10), base: nil)
    }
    model.wait { $0.count < chain.active.count + 2 }
    try disk.streamAll()
    for (name, bytes) in zip(chain.names, chain.snapshots) {
      #expect(firstDifference(try disk.bytes(ofSnapshot: name), bytes) == nil, "\(name)")
    }
    try disk.close()
    try chain.expectUnchanged(active: model.withLock { Array($0.dropLast(2)) })
  }

  @Test("an external snapshot goes on top of internal ones, and both streams keep them")
  func external() throws {
    let chain = try SnapshottedChain(Shape(options: "cluster_size=64k"))
    let disk = try chain.open()
    let path = chain.bench.path("over")
    try disk.snapshot(path: path)
    #expect(try disk.streamLength(of: .snapshots) == 0)
    try disk.put([1, 2, 3], at: 70_000)
    var model = chain.active
    model.replaceSubrange(70_000..<70_003, with: [1, 2, 3])
    // The image with the snapshots is kept as the base, then dropped, unchanged both times.
    let before = try fileBytes(chain.bench.path("top"))
    try disk.rebase(to: try disk.findLayer(named: "top"))
    try disk.streamAll()
    #expect(firstDifference(try disk.allBytes(), model) == nil)
    try disk.close()
    try chain.bench.expectClean(path)
    #expect(firstDifference(try chain.bench.flatBytes(path), model) == nil)
    #expect(try fileBytes(chain.bench.path("top")) == before)
    try chain.expectUnchanged()
  }

  @Test("VM state behind the disk stays as it is")
  func vmState() throws {
    let bench = try Workbench()
    try bench.qemuImg("create", "-f", "qcow2", "base", "4M")
    try bench.qemuIO("base", ["write -P 1 0 4M"])
    try bench.qemuImg(
      "create", "-f", "qcow2", "-o", "cluster_size=4k", "-b", "base", "-F", "qcow2", "top", "8M")
    try bench.qemuIO("top", ["write -P 2 1M 64k", "write -P 3 5M 500k"])
    try bench.qemuImg("snapshot", "-c", "one", "top")
    // What was written behind 4 MiB becomes the state of a machine: the disk ends before.
    let handle = try #require(FileHandle(forUpdatingAtPath: bench.path("top")))
    func put(_ number: UInt64, at offset: UInt64) throws {
      try handle.seek(toOffset: offset)
      try handle.write(
        contentsOf: Data((0..<8).map { UInt8(truncatingIfNeeded: number >> (56 - 8 * $0)) }))
    }
    func number(at offset: UInt64) throws -> UInt64 {
      try handle.seek(toOffset: offset)
      return try #require(try handle.read(upToCount: 8)).reduce(0) { $0 << 8 | UInt64($1) }
    }
    let directory = try number(at: 64)
    let table = try number(at: directory)
    try put(500 << 10, at: directory + 40)
    try put(4 << 20, at: directory + 48)
    try put(4 << 20, at: 24)
    let state = try (2..<4).map { try number(at: table + $0 * 8) }
    #expect(state.contains { $0 != 0 })
    try handle.close()
    let disk = try Disk.open(
      DeviceConfiguration(name: "vda", image: .qcow2(path: bench.path("top"))))
    #expect(try disk.streamLength(of: .snapshots) == 4 << 20)
    try disk.put([UInt8](repeating: 9, count: 4 << 20), at: 0)
    try disk.streamAll()
    try disk.close()
    try bench.expectClean(bench.path("top"))
    let again = try #require(FileHandle(forReadingAtPath: bench.path("top")))
    try again.seek(toOffset: table + 16)
    let left = try #require(try again.read(upToCount: 16))
    #expect(
      Array(left)
        == state.flatMap { n in (0..<8).map { UInt8(truncatingIfNeeded: n >> (56 - 8 * $0)) } })
    let flat = try bench.flatSnapshot("one", of: "top")
    #expect(
      flat == [UInt8](repeating: 1, count: 1 << 20) + [UInt8](repeating: 2, count: 65536)
        + [UInt8](repeating: 1, count: (3 << 20) - 65536))
  }
}

extension Workbench {
  func flatSnapshot(_ name: String, of image: String) throws -> [UInt8] {
    try qemuImg("convert", "-f", "qcow2", "-O", "raw", "-l", name, image, path("flat.raw"))
    return try fileBytes(path("flat.raw"))
  }
}
