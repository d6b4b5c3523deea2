import Foundation
import HostSystem
import TestSupport
import Testing

@testable import Chain

extension InnerDisk {
  /// Streams all that lies above the base, as a job does it, to its end.
  func streamAll(base: LayerID?) throws {
    try disk.streamAll(base: base)
    try adopt()
    try end()
  }
}

@Suite("A stream into a layer", .enabled(if: Workbench.hasTool("qemu-img")))
struct InnerDiskTests {
  private func open(_ path: String) throws -> Disk {
    try Disk.open(DeviceConfiguration(name: "vda", image: .qcow2(path: path)))
  }

  @Test(
    "the disk, views of it and QEMU read the same bytes on the shorter chain", arguments: 0..<12)
  func keepsBytes(seed: UInt64) throws {
    let depth = 3 + Int(seed % 4)
    let chain = try RandomChain(seed: seed &+ 4200, depth: depth)
    let before = try chain.bench.flatBytes(chain.top)
    let active = try fileBytes(chain.top)
    let disk = try open(chain.top)
    let layers = try disk.layers()
    // Every layer but the lowest, and what is below it, come up now and then.
    let place = 1 + Int(seed / 2) % (depth - 2)
    let basePlace = place + 1 + Int(seed) % (depth - place)
    let base = basePlace < depth ? layers[basePlace].id : nil
    let views = try disk.allViews().map { view in try disk.openView(named: view.name) }
    // Half of what the disk knows is from before.
    _ = try disk.bytes(at: 0, count: Int(disk.virtualSize) / 2)
    let seen = try views.map { try $0.allBytes() }
    let inner = try disk.openInner(layers[place].id)
    let late = try disk.openView(
      named: ViewName.layer(index: place, fileName: layers[place].fileName))
    try inner.disk.streamAll(base: base)
    #expect(firstDifference(try disk.allBytes(), before) == nil, "seed \(seed), before the end")
    try inner.adopt()
    try inner.end()
    #expect(firstDifference(try disk.allBytes(), before) == nil, "seed \(seed)")
    for (view, bytes) in zip(views, seen) {
      #expect(firstDifference(try view.allBytes(), bytes) == nil, "seed \(seed), \(view.id)")
    }
    #expect(firstDifference(try late.allBytes(), seen[place]) == nil, "seed \(seed), late")
    for view in views + [late] { view.close() }
    let left = layers.enumerated().filter { $0.offset <= place || $0.offset >= basePlace }
    #expect(try disk.layers().map(\.id) == left.map(\.element.id))
    // What was dropped is unlocked, what was streamed into is not.
    for index in place + 1..<basePlace where layers[index].format == "qcow2" {
      try chain.bench.qemuIO(layers[index].fileName, ["flush"])
    }
    #expect(throws: (any Error).self) {
      try chain.bench.qemuIO(layers[place].fileName, ["flush"])
    }
    try disk.close()
    #expect(try fileBytes(chain.top) == active, "the active image was written to")
    try chain.bench.expectClean(layers[place].path)
    #expect(firstDifference(try chain.bench.flatBytes(chain.top), before) == nil, "seed \(seed)")
  }

  @Test("streams in one chain at once, the base of one being the target of the next")
  func parallel() throws {
    let chain = try RandomChain(seed: 31, depth: 7, topCluster: 4096)
    let before = try chain.bench.flatBytes(chain.top)
    let disk = try open(chain.top)
    let layers = try disk.layers()
    let upper = try disk.openInner(layers[1].id)
    let lower = try disk.openInner(layers[3].id)
    // The upper one knows the lower one's target by the object of before.
    _ = try upper.disk.populate(
      GuestRange(offset: .zero, length: upper.disk.virtualSize / 2), base: layers[3].id)
    try lower.streamAll(base: layers[5].id)
    try upper.streamAll(base: layers[3].id)
    #expect(firstDifference(try disk.allBytes(), before) == nil)
    #expect(try disk.layers().map(\.id) == [0, 1, 3, 5, 6].map { layers[$0].id })
    try disk.streamAll(base: layers[3].id)
    #expect(firstDifference(try disk.allBytes(), before) == nil)
    try disk.close()
    for index in [0, 1, 3] { try chain.bench.expectClean(layers[index].path) }
    #expect(firstDifference(try chain.bench.flatBytes(chain.top), before) == nil)
  }

  @Test("a snapshot, growth and writes of the disk beside a stream into a layer")
  func beside() throws {
    let chain = try RandomChain(seed: 12, depth: 4, topCluster: 4096)
    var model = try chain.bench.flatBytes(chain.top)
    let disk = try Disk.open(
      DeviceConfiguration(name: "vda", image: .qcow2(path: chain.top), isGrowable: true))
    let layers = try disk.layers()
    let inner = try disk.openInner(layers[1].id)
    try disk.put([UInt8](repeating: 9, count: 5000), at: 3000)
    model.replaceSubrange(3000..<8000, with: repeatElement(9, count: 5000))
    _ = try inner.disk.populate(
      GuestRange(offset: .zero, length: inner.disk.virtualSize / 2), base: nil)
    try disk.snapshot(path: chain.bench.path("new"))
    try disk.put([1, 2, 3], at: 100)
    model.replaceSubrange(100..<103, with: [1, 2, 3])
    try disk.grow(to: UInt64(model.count + 65536))
    model += [UInt8](repeating: 0, count: 65536)
    try inner.streamAll(base: nil)
    #expect(firstDifference(try disk.allBytes(), model) == nil)
    #expect(try disk.layers().map(\.fileName) == ["new"] + layers[...1].map(\.fileName))
    try disk.close()
    #expect(firstDifference(try chain.bench.flatBytes(chain.bench.path("new")), model) == nil)
  }

  @Test("a stream that is given up leaves a backing layer, and a second one goes on from there")
  func givenUp() throws {
    let chain = try RandomChain(seed: 5, depth: 4)
    let before = try chain.bench.flatBytes(chain.top)
    let disk = try open(chain.top)
    let layers = try disk.layers()
    for _ in 0..<2 {
      let inner = try disk.openInner(layers[1].id)
      _ = try inner.disk.populate(
        GuestRange(offset: .zero, length: inner.disk.virtualSize / 2), base: nil)
      try inner.end()
      try inner.end()
      #expect(try disk.layers().map(\.id) == layers.map(\.id))
      #expect(firstDifference(try disk.allBytes(), before) == nil)
    }
    let inner = try disk.openInner(layers[1].id)
    let again = try inner.disk.populate(
      GuestRange(offset: .zero, length: inner.disk.virtualSize / 2), base: nil)
    #expect(again.copied == 0 && again.zeroed == 0)
    try inner.streamAll(base: nil)
    try disk.close()
    try chain.bench.expectClean(layers[1].path)
    #expect(firstDifference(try chain.bench.flatBytes(chain.top), before) == nil)
  }

  @Test("internal snapshots of the layer keep their bytes, and views of them too")
  func snapshots() throws {
    let chain = try DiskViewTests.Chain()
    // It shares the tables of the active disk, which has to leave them.
    try chain.bench.qemuImg("snapshot", "-c", "second", "low")
    let disk = try chain.open()
    let views = try chain.bytes.keys.sorted().map { (name: $0, view: try disk.openView(named: $0)) }
    let layers = try disk.layers()
    let inner = try disk.openInner(layers[2].id)
    func compare(_ when: String) throws {
      for (name, view) in views {
        // The first one is the disk itself, of which the chain's table has the same bytes.
        let difference = firstDifference(try view.allBytes(), try #require(chain.bytes[name]))
        #expect(difference == nil, "\(name), \(when)")
      }
    }
    _ = try inner.disk.populate(
      GuestRange(offset: .zero, length: inner.disk.virtualSize), base: nil)
    try inner.disk.fillSnapshots()
    try compare("filled")
    try inner.disk.flush()
    try compare("flushed")
    try inner.streamAll(base: nil)
    try compare("ended")
    // What a snapshot left is known to somebody perhaps.
    let refusal = #expect(throws: ChainError.self) { try disk.openInner(layers[2].id) }
    #expect(refusal?.kind == .unsupported)
    for (_, view) in views { view.close() }
    try disk.close()
    try chain.bench.qemuImg("convert", "-l", "in/side", "-O", "raw", "low", "flat.raw")
    #expect(try fileBytes(chain.bench.path("flat.raw")) == chain.bytes["2-low@in%2Fside"])
    // Leaks go with the next stream that opens it.
    let next = try chain.open()
    try next.openInner(try next.findLayer(named: "low")).end()
    try next.close()
    try chain.bench.expectClean("low")
  }

  @Test("what cannot be streamed into is refused, and everything is as before")
  func refusals() throws {
    let bench = try Workbench()
    try bench.qemuImg("create", "-f", "raw", "base", "1M")
    try bench.qemuIO("base", format: "raw", ["write -P 7 0 1M"])
    try bench.qemuImg("create", "-f", "qcow2", "-b", "base", "-F", "raw", "mid", "1M")
    try bench.qemuImg("create", "-f", "qcow2", "-b", "mid", "-F", "qcow2", "top", "1M")
    let mid = try fileBytes(bench.path("mid"))
    func expect(_ kind: FailureKind, _ name: String, _ disk: Disk) throws {
      let layer = try disk.findLayer(named: name)
      let error = #expect(throws: ChainError.self) { try disk.openInner(layer) }
      #expect(error?.kind == kind, "\(name): \(String(describing: error))")
    }
    let disk = try open(bench.path("top"))
    try expect(.unsupported, "base", disk)
    let gone = #expect(throws: ChainError.self) { try disk.openInner(LayerID(rawValue: 2)) }
    #expect(gone?.kind == .notFound, "the active image is not below itself")
    // Another reader of the layer: it must not change for that one.
    let other = try Disk.open(
      DeviceConfiguration(name: "vdb", image: .qcow2(path: bench.path("mid")), isReadOnly: true))
    try expect(.busy, "mid", disk)
    try other.close()
    try disk.openInner(try disk.findLayer(named: "mid")).end()
    try disk.close()
    #expect(try fileBytes(bench.path("mid")) == mid)
    let readOnly = try Disk.open(
      DeviceConfiguration(name: "vda", image: .qcow2(path: bench.path("top")), isReadOnly: true))
    try expect(.readOnly, "mid", readOnly)
    try readOnly.close()
    // The corrupt bit: byte 79 of the header, bit 1.
    var broken = mid
    broken[79] |= 2
    try Data(broken).write(to: URL(fileURLWithPath: bench.path("mid")))
    let damaged = try open(bench.path("top"))
    try expect(.corrupt, "mid", damaged)
    // It has the locks of a backing layer as before.
    let reader = try Disk.open(
      DeviceConfiguration(name: "vdb", image: .qcow2(path: bench.path("mid")), isReadOnly: true))
    try reader.close()
    #expect(throws: (any Error).self) { try bench.qemuIO("mid", ["write 0 1"]) }
    try damaged.close()
  }
}
