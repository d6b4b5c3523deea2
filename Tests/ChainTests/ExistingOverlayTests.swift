import BlockIO
import HostSystem
import ImageDriver
import TestSupport
import Testing

@testable import Chain

@Suite("Overlays that somebody else made")
struct ExistingOverlayTests {
  /// Puts an empty overlay over each disk's active image, in files of which nothing was flushed.
  private func makeOverlays(_ bench: GroupBench) throws {
    for name in GroupBench.names {
      let maker = SimulatedDisk(seed: 0)
      try ImageBuilder.create(
        on: maker, virtualSize: UInt64(GroupBench.size),
        backing: BackingReference(name: "/" + name, format: "qcow2"))
      let content = maker.snapshot
      let bytes = content.bytes(0, Int(content.count))
      let storage = try bench.files.create(
        GroupBench.newPath(name), like: maker, isLocked: false)
      try storage.write(bytes.span.bytes, at: HostOffset(0))
    }
  }

  private func expect(_ files: SimulatedFiles, _ models: [[UInt8]], _ says: String) throws {
    for (name, model) in zip(GroupBench.names, models) {
      let disk = try GroupBench.open(files, name, GroupBench.newPath(name))
      #expect(firstDifference(try disk.allBytes(), model) == nil, "\(says): \(name)")
      try disk.close()
    }
  }

  @Test("their bytes and their names survive a crash as soon as the snapshot was taken")
  func durable() throws {
    let bench = try GroupBench(seed: 5)
    try bench.scribble()
    try makeOverlays(bench)
    let before = bench.models
    try GroupSnapshot(
      bench.disks.map { (disk: $0, path: GroupBench.newPath($0.name)) }, mode: .existing
    ).take()
    let taken = bench.files.moment
    try bench.scribble()
    for disk in bench.disks { try disk.flush() }
    for seed in 0..<16 as Range<UInt64> {
      try expect(taken.crash(seed: seed), before, "taken, crash \(seed)")
      try expect(bench.files.crash(seed: seed), bench.models, "written to, crash \(seed)")
    }
    for disk in bench.disks { try disk.close() }
  }

  @Test("a call of one that fails leaves it, and all disks, as they were")
  func failing() throws {
    for call in 1...1000 {
      let bench = try GroupBench(seed: 6)
      try makeOverlays(bench)
      let overlay = try #require(bench.files.disk(GroupBench.newPath("vdb")))
      overlay.inject(.fails(call: overlay.callCount + call))
      let group = GroupSnapshot(
        bench.disks.map { (disk: $0, path: GroupBench.newPath($0.name)) }, mode: .existing)
      defer { for disk in bench.disks { try? disk.close() } }
      do { try group.take() } catch {
        #expect(error.disk == "vdb" && error.cause.kind == .io, "call \(call): \(error.cause)")
        #expect(overlay.isClosed, "call \(call)")
        try bench.scribble()
        try bench.expectDisks(layers: 2, "call \(call)")
        continue
      }
      #expect(call > 3)
      return
    }
    Issue.record("every call fails")
  }
}
