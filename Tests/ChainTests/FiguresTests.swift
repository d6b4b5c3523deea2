import Foundation
import HostSystem
import TestSupport
import Testing

@testable import Chain

@Suite("Figures", .enabled(if: Workbench.hasTool("qemu-img") && Workbench.hasTool("qemu-io")))
struct FiguresTests {
  @Test("the map counts each merge and what had to go for it, and no lookup that it answers")
  func map() throws {
    let bench = try Workbench()
    try bench.qemuImg("create", "-f", "qcow2", "base", "96M")
    try bench.qemuImg("create", "-f", "qcow2", "-b", "base", "-F", "qcow2", "top")
    for (budget, misses, evictions) in [(1 << 20, 3, 0), (0, 4, 3)] as [(Int, UInt64, UInt64)] {
      let disk = try Disk.open(
        DeviceConfiguration(
          name: "vda", image: .qcow2(path: bench.path("top")), isReadOnly: true,
          mapCacheBytes: budget))
      #expect(
        disk.mapFigures == CacheFigures(bytes: 0, limit: UInt64(budget), misses: 0, evictions: 0))
      // The first granule thrice in a row, then the others, then the first again.
      for place in [0, 5, 31, 32, 64, 0] as [UInt64] {
        _ = try disk.bytes(at: place << 20, count: 512)
      }
      let figures = disk.mapFigures
      #expect(figures.misses == misses && figures.evictions == evictions, "\(figures)")
      #expect(figures.bytes == UInt64(disk.map.bytesUsed) && figures.bytes > 0)
      // Tables that were read anew are asked again, once.
      disk.era.end()
      for _ in 0..<2 { _ = try disk.bytes(at: 0, count: 512) }
      #expect(disk.mapFigures.misses == misses + 1)
      try disk.close()
    }
  }

  @Test("a compressed cluster counts once however many pieces of it are read")
  func inflated() throws {
    let bench = try Workbench()
    try bench.qemuImg("create", "-f", "qcow2", "plain", "1M")
    try bench.qemuIO("plain", ["write -P 7 0 128k"])
    try bench.qemuImg("convert", "-c", "-O", "qcow2", "plain", "top")
    let disk = try Disk.open(
      DeviceConfiguration(name: "vda", image: .qcow2(path: bench.path("top")), isReadOnly: true))
    for place in [0, 4096, 60 << 10, 64 << 10] {
      #expect(try disk.bytes(at: UInt64(place), count: 4096).allSatisfy { $0 == 7 })
    }
    #expect(
      disk.inflatedFigures
        == CacheFigures(bytes: 128 << 10, limit: 8 << 20, misses: 2, evictions: 0))
    try disk.close()
  }

  @Test("the figures of a chain are those of its layers")
  func chain() throws {
    let chain = try RandomChain(seed: 5, depth: 4, sizeUnits: 100)
    let disk = try Disk.open(
      DeviceConfiguration(name: "vda", image: .qcow2(path: chain.top), isReadOnly: true))
    let layers = try disk.layers()
    #expect(layers.count > 2)
    #expect(
      try disk.chainFigures()
        == ChainFigures(
          layerCount: layers.count, activeBytes: layers[0].allocatedBytes,
          backingBytes: layers.dropFirst().reduce(0) { $0 + $1.allocatedBytes }))
    try disk.close()
    #expect(throws: ChainError.self) { try disk.chainFigures() }
  }
}
