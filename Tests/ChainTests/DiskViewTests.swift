import Foundation
import HostSystem
import TestSupport
import Testing

@testable import Chain

extension DiskView {
  /// All bytes of the view.
  func allBytes() throws -> [UInt8] {
    var result = [UInt8](repeating: 0xEE, count: Int(size))
    var span = result.mutableSpan
    var bytes = span.mutableBytes
    try read(into: &bytes, at: .zero)
    return result
  }
}

extension Disk {
  /// All views by name, listed a few at a time.
  func allViews() throws -> [(id: ViewID, name: String)] {
    var found: [(id: ViewID, name: String)] = []
    while true {
      let more = try views(after: found.last?.id, limit: 3) { Issue.record("\($0)") }
      if more.isEmpty { return found }
      found += more
    }
  }

  /// The open view with a name.
  func openView(named name: String) throws -> DiskView {
    let found = try #require(try view(named: name), "no \(name)")
    return try #require(try openView(found.id))
  }
}

@Suite("Views of a disk's layers", .enabled(if: Workbench.hasTool("qemu-img")))
struct DiskViewTests {
  /// Four layers of four sizes, the lowest one raw, the third with an internal snapshot, and what QEMU
  /// reads of each.
  struct Chain {
    let bench: Workbench
    let bytes: [String: [UInt8]]

    init() throws {
      bench = try Workbench()
      try bench.qemuImg("create", "-f", "raw", "base.raw", "3M")
      try bench.qemuIO("base.raw", format: "raw", ["write -P 1 0 700k", "write -P 2 2900k 172k"])
      try bench.qemuImg(
        "create", "-f", "qcow2", "-o", "cluster_size=4k", "-b", "base.raw", "-F", "raw", "low", "2M"
      )
      try bench.qemuIO("low", ["write -P 3 100k 300k", "write -c -P 4 1M 64k"])
      try bench.qemuImg("snapshot", "-c", "in/side", "low")
      try bench.qemuIO("low", ["write -P 5 200k 300k", "write -P 6 1020k 20k", "discard 600k 64k"])
      try bench.qemuImg(
        "create", "-f", "qcow2", "-o", "cluster_size=16k,extended_l2=on", "-b", "low", "-F",
        "qcow2",
        "mid", "4M")
      try bench.qemuIO("mid", ["write -P 7 300k 5k", "write -z 64k 32k", "write -P 8 3M 1M"])
      try bench.qemuImg("create", "-f", "qcow2", "-b", "mid", "-F", "qcow2", "top", "3584k")
      try bench.qemuIO("top", ["write -P 9 0 10k"])
      var bytes: [String: [UInt8]] = [:]
      for (index, name) in ["top", "mid", "low", "base.raw"].enumerated() {
        bytes["\(index)-\(name)"] = try bench.flatBytes(
          bench.path(name), format: name == "base.raw" ? "raw" : "qcow2")
      }
      try bench.qemuImg("convert", "-l", "in/side", "-O", "raw", "low", "flat.raw")
      bytes["2-low@in%2Fside"] = try fileBytes(bench.path("flat.raw"))
      self.bytes = bytes
    }

    func open() throws -> Disk {
      try Disk.open(DeviceConfiguration(name: "vda", image: .qcow2(path: bench.path("top"))))
    }
  }

  @Test("each view has the bytes that QEMU reads of its layer, and its size")
  func bytes() throws {
    let chain = try Chain()
    let disk = try chain.open()
    let views = try disk.allViews()
    #expect(views.map(\.name) == ["0-top", "1-mid", "2-low", "2-low@in%2Fside", "3-base.raw"])
    for (id, name) in views {
      let expected = try #require(chain.bytes[name])
      let description = try #require(try disk.view(named: name))
      #expect(description.id == id && description.size == expected.count, "\(name)")
      #expect(try disk.view(id) == description)
      let view = try disk.openView(named: name)
      #expect(firstDifference(try view.allBytes(), expected) == nil, "\(name)")
      // Between what is called a hole and the next data there is nothing but zeroes.
      var position = GuestOffset.zero
      while let hole = try view.nextHole(from: position) {
        let end = try view.nextData(from: hole)?.rawValue ?? view.size
        #expect(expected[Int(hole.rawValue)..<Int(end)].allSatisfy { $0 == 0 }, "\(name)")
        position = GuestOffset(end)
      }
      view.close()
    }
    for name in ["4-x", "1-low", "01-mid", "2-low@", "2-low@in/side", "0-top@x", "mid", ""] {
      #expect(try disk.view(named: name) == nil, "\(name)")
    }
    try disk.close()
  }

  @Test("views stay as they are while the disk is written to and streamed, and after that")
  func acrossStream() throws {
    let chain = try Chain()
    let disk = try chain.open()
    let views = try disk.allViews().map { try disk.openView(named: $0.name) }
    let names = try disk.allViews().map(\.name)
    try disk.put([UInt8](repeating: 0xAA, count: 500_000), at: 90_000)
    let base = try disk.findLayer(named: "base.raw")
    try disk.streamAll(base: base)
    let bytes = try disk.allBytes()
    #expect(try disk.allViews().map(\.name) == ["0-top", "1-base.raw"])
    for (view, name) in zip(views, names) where name != "0-top" {
      #expect(firstDifference(try view.allBytes(), chain.bytes[name] ?? []) == nil, "\(name)")
    }
    #expect(firstDifference(try views[0].allBytes(), bytes) == nil)
    // What left the chain is there for those who have it open, and for nobody else.
    #expect(try disk.view(views[1].id) == nil && disk.openView(views[1].id) == nil)
    #expect(try disk.view(views[4].id) != nil)
    try disk.close()
    #expect(throws: ChainError.self) { try views[4].allBytes() }
    for view in views { view.close() }
  }

  @Test("a layer that left the chain stays locked until its last view is closed")
  func locks() throws {
    let chain = try Chain()
    let disk = try chain.open()
    let low = try disk.openView(named: "2-low")
    let mid = try disk.openView(named: "1-mid")
    try disk.streamAll()
    mid.close()
    try chain.bench.qemuIO("mid", ["write -P 1 0 4k"])
    #expect(throws: (any Error).self) { try chain.bench.qemuIO("low", ["write -P 1 0 4k"]) }
    #expect(firstDifference(try low.allBytes(), chain.bytes["2-low"] ?? []) == nil)
    low.close()
    try chain.bench.qemuIO("low", ["write -P 1 0 4k"])
    try disk.close()
  }

  @Test("a live snapshot moves the indexes, and what was open goes on")
  func acrossSnapshot() throws {
    let chain = try Chain()
    let disk = try chain.open()
    let now = try disk.openView(named: "0-top")
    let mid = try disk.openView(named: "1-mid")
    let first = try disk.views(limit: 2) { Issue.record("\($0)") }
    try disk.snapshot(path: chain.bench.path("new"))
    try disk.put([1, 2, 3], at: 5)
    let bytes = try disk.allBytes()
    #expect(
      try disk.allViews().map(\.name)
        == ["0-new", "1-top", "2-mid", "3-low", "3-low@in%2Fside", "4-base.raw"])
    // A list that was begun before goes on below what it has given.
    let rest = try disk.views(after: first.last?.id, limit: 9) { Issue.record("\($0)") }
    #expect(rest.map(\.name) == ["3-low", "3-low@in%2Fside", "4-base.raw"])
    #expect(firstDifference(try now.allBytes(), bytes) == nil)
    #expect(firstDifference(try mid.allBytes(), chain.bytes["1-mid"] ?? []) == nil)
    let top = try disk.openView(named: "1-top")
    #expect(firstDifference(try top.allBytes(), chain.bytes["0-top"] ?? []) == nil)
    // The list goes on as well where the layer it has come to is gone.
    try disk.streamAll(base: try disk.findLayer(named: "low"))
    let after = try disk.views(after: first.last?.id, limit: 9) { Issue.record("\($0)") }
    #expect(after.map(\.name) == ["1-low", "1-low@in%2Fside", "2-base.raw"])
    for view in [now, mid, top] { view.close() }
    try disk.close()
  }

  static let fills: [SnapshottedChain.Shape] = [
    .init(options: "cluster_size=512"), .init(options: "cluster_size=4k"),
    .init(options: "cluster_size=64k", keepsBase: true),
    .init(options: "cluster_size=4k,compat=0.10"),
    .init(options: "cluster_size=16k,extended_l2=on"),
    .init(options: "cluster_size=4k", grows: true),
  ]

  // The fill gives snapshots new tables, and what it leaves is soon full of something else.
  @Test(
    "a view of a snapshot stays right while a stream changes the snapshot's tables",
    arguments: fills)
  func acrossFill(_ shape: SnapshottedChain.Shape) throws {
    let chain = try SnapshottedChain(shape)
    var configuration = DeviceConfiguration(
      name: "vda", image: .qcow2(path: chain.bench.path("top")))
    configuration.isGrowable = true
    let disk = try Disk.open(configuration)
    let base = shape.keepsBase ? try disk.findLayer(named: "base") : nil
    let views = try chain.names.map { try disk.openView(named: "0-top@\($0)") }
    func expectRight(_ moment: String) throws {
      for (view, bytes) in zip(views, chain.snapshots) {
        #expect(firstDifference(try view.allBytes(), bytes) == nil, "\(view.id) \(moment)")
      }
    }
    try expectRight("at first")
    var random = SeededGenerator(seed: 5)
    let end = try disk.streamLength(of: .snapshots)
    for offset in stride(from: 0, to: end, by: 128 << 10) {
      _ = try disk.populate(
        .snapshots, GuestRange(offset: GuestOffset(offset), length: 128 << 10), base: base)
      try disk.flush()
      // What is written anew takes whatever place is free.
      let start = Int.random(in: 0..<SnapshottedChain.size - 400_000, using: &random)
      try disk.discard(GuestRange(offset: GuestOffset(UInt64(start)), length: 400_000))
      try disk.flush()
      try disk.put(random.bytes(400_000), at: UInt64(start))
      try expectRight("behind \(offset)")
      // Another object is the image from here on, and the fill goes on with that one.
      if offset == 1 << 20, !shape.options.contains("compat") {
        try disk.grow(to: disk.virtualSize + (1 << 20))
        try expectRight("grown")
      }
    }
    try disk.streamAll(base: base)
    try disk.put(random.bytes(1 << 20), at: 1 << 20)
    try disk.flush()
    try expectRight("streamed")
    try disk.snapshot(path: chain.bench.path("over"))
    try expectRight("below an overlay")
    try disk.streamAll(base: base)
    #expect(try disk.allViews().map(\.name).first == "0-over")
    #expect(try disk.view(named: "1-top") == nil)
    try expectRight("dropped")
    for view in views { view.close() }
    try disk.close()
    try chain.bench.expectClean(chain.bench.path("over"))
  }

  @Test("whoever has a layer in use finds the object that is its image now, also behind a growth")
  func newestImage() throws {
    let bench = try Workbench()
    try bench.qemuImg("create", "-f", "qcow2", "top", "1M")
    var configuration = DeviceConfiguration(name: "vda", image: .qcow2(path: bench.path("top")))
    configuration.isGrowable = true
    let disk = try Disk.open(configuration)
    func layer(_ index: Int) throws -> Layer? {
      try disk.withLayers { layers throws(ChainError) in layers.layer(at: index) }
    }
    let use = try #require(try layer(0)).use
    try disk.grow(to: 2 << 20)
    let grown = try #require(try layer(0))
    #expect(use.image === grown.image && use === grown.use)
    try disk.snapshot(path: bench.path("over"))
    let below = try #require(try layer(1))
    #expect(use.image === below.image && use === below.use)
    try disk.close()
  }

  @Test("a snapshot that another program took away is an error of its view, and of nothing else")
  func takenAway() throws {
    let chain = try SnapshottedChain(.init(options: "cluster_size=64k"))
    var configuration = DeviceConfiguration(
      name: "vda", image: .qcow2(path: chain.bench.path("top")), locking: .none)
    configuration.isGrowable = true
    let disk = try Disk.open(configuration)
    let view = try disk.openView(named: "0-top@two")
    let file = try #require(FileHandle(forUpdatingAtPath: chain.bench.path("top")))
    try file.seek(toOffset: 60)
    try file.write(contentsOf: [0, 0, 0, 0])
    try file.close()
    #expect(firstDifference(try view.allBytes(), chain.snapshots[1]) == nil)
    try disk.grow(to: 4 << 20)
    #expect(throws: ChainError.self) { try view.allBytes() }
    #expect(try disk.allViews().map(\.name) == ["0-top", "1-mid", "2-base"])
    #expect(
      firstDifference(try disk.bytes(at: 0, count: SnapshottedChain.size), chain.active) == nil)
    view.close()
    try disk.close()
  }

  @Test("a view that is opened while the fill runs reads what QEMU read before")
  func openedInFill() throws {
    let chain = try SnapshottedChain(.init(options: "cluster_size=4k"))
    let disk = try chain.open()
    let done = Monitor(false)
    let stream = Thread {
      for offset in stride(from: 0 as UInt64, to: 3 << 20, by: 32 << 10) {
        _ = try? disk.populate(
          .snapshots, GuestRange(offset: GuestOffset(offset), length: 32 << 10), base: nil)
        try? disk.flush()
        try? disk.put([UInt8](repeating: UInt8(offset >> 15), count: 9000), at: offset)
      }
      done.change { $0 = true }
    }
    stream.start()
    var rounds = 0
    while !done.withLock({ $0 }) || rounds == 0 {
      for (name, bytes) in zip(chain.names, chain.snapshots) {
        let view = try disk.openView(named: "0-top@\(name)")
        #expect(firstDifference(try view.allBytes(), bytes) == nil, "\(name)")
        view.close()
      }
      rounds += 1
    }
    try disk.streamAll()
    try disk.close()
  }
}
