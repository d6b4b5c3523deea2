import BlockIO
import HostSystem
import ImageDriver
import TestSupport
import Testing

@testable import Chain

/// Power goes at every call that a stream into the middle layer makes to it.
@Suite("Crashes of a stream into a layer")
struct InnerDiskCrashTests {
  private let bench = DiskCrashTests()

  @Test(
    "it may stop anywhere, and the chain holds the same bytes",
    arguments: [21, 22, 23] as [UInt64], [false, true])
  func stops(seed: UInt64, sharesBlocks: Bool) throws {
    try bench.atEachCall(
      seed: seed, version: seed == 22 ? 2 : 3, sharesBlocks: sharesBlocks, of: { $0.disk("/mid") },
      operation: { files, disk in
        let before = try disk.allBytes()
        let inner = try disk.openInner(try disk.findLayer(named: "mid"))
        do {
          _ = try inner.disk.populate(
            GuestRange(offset: .zero, length: inner.disk.virtualSize / 2), base: nil)
          try inner.disk.flush()
          try inner.streamAll(base: nil)
        } catch {
          // The disk goes on with what the layer has, and what those below have; only reads of its
          // tables fail now, as everything does.
          try? inner.end()
          files.disk("/mid")?.inject(nil)
          #expect(try disk.allBytes() == before)
          throw error
        }
        #expect(try disk.layers().count == 2 && disk.allBytes() == before)
      },
      check: { files, model, isDone, says in
        try bench.expectBytes(files, "/top", model, says)
        if says.hasSuffix("crash 0") {
          try bench.expectNoCorruption(try #require(files.disk("/mid")), says)
        }
        // A second one goes on with it.
        let disk = try bench.open(files, "/top")
        #expect(try disk.layers().count == 2 || !isDone, "\(says)")
        var bytes = model
        bytes[0] = 1
        try disk.openInner(try disk.findLayer(named: "mid")).streamAll(base: nil)
        #expect(firstDifference(try disk.allBytes(), bytes) == nil, "\(says), again")
        #expect(try disk.layers().count == 2)
        try disk.close()
      })
  }

  @Test("a flush that fails ends the stream, and the disk trusts what was durable before")
  func failedFlush() throws {
    var failures = 0
    var step = 1
    while true {
      let (files, model) = try bench.makeChain(seed: 24)
      let disk = try bench.open(files, "/top")
      let mid = try disk.findLayer(named: "mid")
      let inner = try disk.openInner(mid)
      let view = try #require(try disk.openView(.layer(mid)))
      let viewed = try view.allBytes()
      let victim = try #require(files.disk("/mid"))
      _ = try inner.disk.populate(
        GuestRange(offset: .zero, length: inner.disk.virtualSize), base: nil)
      #expect(try disk.allBytes() == model)
      let late = try #require(try disk.openView(.layer(mid)))
      #expect(try late.allBytes() == viewed)
      victim.inject(.fails(call: victim.callCount + step))
      var isDone = false
      do {
        try inner.disk.rebase(to: nil)
        isDone = true
      } catch {}
      var hasFailed = false
      do { try inner.end() } catch { hasFailed = true }
      victim.inject(nil)
      #expect(try disk.allBytes() == model, "call \(step)")
      for view in [view, late] { #expect(try view.allBytes() == viewed, "call \(step)") }
      if hasFailed {
        failures += 1
        // Nothing is asked for that is in no table on the host.
        let fresh = try bench.open(files.copied(), "/top", isReadOnly: true)
        #expect(try disk.extents(of: "/mid") == fresh.extents(of: "/mid"), "call \(step)")
        // Nor by a view, which may be open when the place is given to something else.
        let freshMid = try fresh.findLayer(named: "mid")
        let freshView = try #require(try fresh.openView(.layer(freshMid)))
        #expect(try late.extents(of: mid) == freshView.extents(of: freshMid), "call \(step)")
        freshView.close()
        try fresh.close()
      }
      for view in [view, late] { view.close() }
      try disk.close()
      if isDone { break }
      step += 1
    }
    #expect(failures > 1)
  }
}

extension Disk {
  /// What a layer answers for, as the disk knows it.
  fileprivate func extents(of path: String) throws -> [DiskExtent] {
    let depth = try #require(try layers().first { $0.path == path }).index
    var found: [DiskExtent] = []
    var position = GuestOffset.zero
    while position.rawValue < virtualSize {
      let extent = try extent(at: position)
      if extent.depth == depth, extent.kind != .unallocated { found.append(extent) }
      position = extent.range.end
    }
    return found
  }
}

extension DiskView {
  /// What a layer answers for, as the view knows it.
  fileprivate func extents(of layer: LayerID) throws -> [DiskExtent] {
    let held = try #require(held)
    var found: [DiskExtent] = []
    var position = GuestOffset.zero
    while position.rawValue < size {
      let extent = try held.extent(at: position, upTo: size - position.rawValue)
      if extent.layer?.id == layer, case .data(let host) = extent.mapping {
        found.append(
          DiskExtent(
            range: GuestRange(offset: position, length: extent.length), kind: .data(host),
            depth: 0))
      }
      position += extent.length
    }
    return found
  }
}
