import HostSystem
import Testing

@testable import Chain

@Suite("Streaming a disk", .enabled(if: Workbench.hasTool("qemu-img")))
struct DiskStreamTests {
  func open(_ path: String) throws -> Disk {
    try Disk.open(DeviceConfiguration(name: "vda", image: .qcow2(path: path)))
  }

  @Test("a streamed disk holds the same bytes on the shorter chain", arguments: 0..<24)
  func keepsBytes(seed: UInt64) throws {
    let depth = 2 + Int(seed % 4)
    let chain = try RandomChain(
      seed: seed &+ 900, depth: depth, topCluster: [512, 4096, 65536][Int(seed % 3)])
    let before = try chain.bench.flatBytes(chain.top)
    let disk = try open(chain.top)
    let layers = try disk.layers()
    #expect(layers.map(\.fileName) == chain.names.reversed())
    // Each layer below the active image is a base once, and no base.
    let choice = Int(seed) % depth
    let base = choice == 0 ? nil : layers[choice].id
    let result = try disk.streamAll(base: base)
    #expect(result.copied + result.zeroed + result.skipped == disk.virtualSize)
    #expect(firstDifference(try disk.allBytes(), before) == nil, "seed \(seed)")
    // A second stream finds nothing to do.
    let again = try disk.populate(
      GuestRange(offset: .zero, length: disk.virtualSize), base: base)
    #expect(again.copied == 0 && again.zeroed == 0)
    #expect(
      try disk.layers().map(\.fileName) == [layers[0].fileName]
        + layers.filter { layer in
          base.map { layer.id <= $0 } ?? false
        }.map(\.fileName))
    try disk.close()
    try chain.bench.expectClean(chain.top)
    #expect(firstDifference(try chain.bench.flatBytes(chain.top), before) == nil, "seed \(seed)")
    let info = try chain.bench.qemuImg("info", chain.top)
    if base == nil {
      #expect(!info.contains("backing file"))
    } else {
      #expect(info.contains("backing file: \(layers[choice].fileName) (actual path:"))
      #expect(info.contains("backing file format: \(layers[choice].format)"))
    }
  }

  @Test("a snapshot between the check and the end of a stream keeps the old chain")
  func snapshotBeforeTheEnd() throws {
    let chain = try RandomChain(seed: 77, depth: 3, topCluster: 65536)
    let before = try chain.bench.flatBytes(chain.top)
    let disk = try open(chain.top)
    _ = try disk.populate(GuestRange(offset: .zero, length: disk.virtualSize), base: nil)
    let checked = try disk.checkStreamed(base: nil)
    let path = chain.bench.path("snap")
    try disk.snapshot(path: path)
    #expect(throws: ChainError.self) {
      try disk.changeBacking(to: nil, string: nil, checked)
    }
    #expect(try disk.layers().count == 4)
    #expect(firstDifference(try disk.allBytes(), before) == nil)
    try disk.close()
    #expect(firstDifference(try chain.bench.flatBytes(path), before) == nil)
  }

  @Test("zeroes of a short layer stay zero when only the base is left")
  func shortMiddle() throws {
    let bench = try Workbench()
    try bench.qemuImg("create", "-f", "qcow2", "base", "4M")
    try bench.qemuIO("base", ["write -P 7 0 4M"])
    try bench.qemuImg("create", "-f", "qcow2", "-b", "base", "-F", "qcow2", "mid", "1M")
    try bench.qemuImg("create", "-f", "qcow2", "-b", "mid", "-F", "qcow2", "top", "4M")
    let before = try bench.flatBytes(bench.path("top"))
    let disk = try open(bench.path("top"))
    let base = try disk.findLayer(named: "base")
    let extents = try disk.streamExtents(from: .zero, base: base, limit: 10)
    #expect(
      extents == [
        StreamExtent(range: GuestRange(offset: .zero, length: 1 << 20), kind: .skip),
        StreamExtent(range: GuestRange(offset: GuestOffset(1 << 20), length: 3 << 20), kind: .zero),
      ])
    let result = try disk.streamAll(base: base)
    #expect(result.zeroed == 3 << 20)
    #expect(try disk.allBytes() == before)
    try disk.close()
    #expect(try bench.flatBytes(bench.path("top")) == before)
  }

  @Test("a chain that is not streamed is not shortened")
  func notStreamed() throws {
    let bench = try Workbench()
    try bench.qemuImg("create", "-f", "qcow2", "base", "1M")
    try bench.qemuIO("base", ["write -P 7 0 1M"])
    try bench.qemuImg("create", "-f", "qcow2", "-b", "base", "-F", "qcow2", "top", "1M")
    let header = try fileBytes(bench.path("top")).prefix(512)
    let disk = try open(bench.path("top"))
    do {
      try disk.rebase(to: nil)
      Issue.record("the base was dropped")
    } catch {
      guard case .notStreamed = error else { throw error }
    }
    #expect(try disk.layers().count == 2)
    #expect(try fileBytes(bench.path("top")).prefix(512) == header)
    try disk.close()
  }

  @Test("the base is named as before where that leads to it, else anew from here")
  func backingStrings() throws {
    let bench = try Workbench()
    try bench.run("mkdir", ["sub", "other"])
    try bench.qemuImg("create", "-f", "qcow2", "base", "1M")
    try bench.qemuIO("base", ["write -P 7 0 64k"])
    try bench.run(
      "qemu-img", ["create", "-f", "qcow2", "-b", "../base", "-F", "qcow2", "sub/mid", "1M"])
    try bench.qemuIO("sub/mid", ["write -P 8 64k 64k"])
    for (top, below, expected) in [
      ("sub/top", "mid", "../base"), ("top", "sub/mid", "base"),
      ("other/top", bench.path("sub/mid"), "../base"),
    ] {
      try bench.run("qemu-img", ["create", "-f", "qcow2", "-b", below, "-F", "qcow2", top, "1M"])
      let before = try bench.flatBytes(bench.path(top))
      let disk = try open(bench.path(top))
      let base = try disk.findLayer(named: "base")
      #expect(try disk.backingString(for: base) == expected)
      do {
        _ = try disk.backingString(for: base, requested: "nowhere")
        Issue.record("a string that leads nowhere was taken")
      } catch {
        #expect(error.kind == .invalid)
      }
      try disk.streamAll(base: base)
      #expect(try disk.layers().first?.backingString == expected)
      // The dropped layer is unlocked: QEMU may write to it.
      try bench.qemuIO("sub/mid", ["write -P 8 64k 64k"])
      try disk.close()
      #expect(try bench.flatBytes(bench.path(top)) == before)
    }
  }

  @Test("a layer is found by file name, path, backing string, and path from its overlay")
  func findsLayers() throws {
    let bench = try Workbench()
    try bench.run("mkdir", ["sub"])
    try bench.qemuImg("create", "-f", "qcow2", "same", "1M")
    try bench.run(
      "qemu-img", ["create", "-f", "qcow2", "-b", "../same", "-F", "qcow2", "sub/same", "1M"])
    try bench.qemuImg("create", "-f", "qcow2", "-b", "sub/same", "-F", "qcow2", "top", "1M")
    let disk = try open(bench.path("top"))
    let ids = try disk.layers().map(\.id)
    #expect(try disk.findLayer(named: "same") == ids[1])
    #expect(try disk.findLayer(named: "sub/same") == ids[1])
    #expect(try disk.findLayer(named: bench.path("sub/same")) == ids[1])
    #expect(try disk.findLayer(named: "../same") == ids[2])
    #expect(try disk.findLayer(named: bench.path("same")) == ids[2])
    for name in ["top", bench.path("top"), "nope", ""] {
      do {
        _ = try disk.findLayer(named: name)
        Issue.record("\(name) was found")
      } catch {
        #expect(error.kind == .notFound)
        #expect(error.description.hasPrefix("vda: no layer named \(name)"))
      }
    }
    try disk.close()
  }
}
