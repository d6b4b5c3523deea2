import HostSystem
import ImageDriver
import Testing

@testable import Chain

@Suite("Merged map", .enabled(if: Workbench.hasTool("qemu-img")))
struct MergedMapTests {
  /// Compares every sector of the map with a walk down the layers.
  func expectWalk(_ map: MergedMap, _ backing: BackingLayers, size: UInt64, _ says: String) throws {
    var position = GuestOffset.zero
    while position.rawValue < size {
      let extent = try map.extent(at: position, upTo: size - position.rawValue, in: backing)
      for distance in stride(from: 0, to: extent.length, by: 512) {
        let (layer, mapping) = try walk(position + distance, backing)
        // Behind the end of all layers nobody has anything, or the topmost one says that it reads zero.
        if position + distance >= backing.end, extent.mapping == .unallocated { continue }
        if extent.layer?.id != layer?.id || extent.mapping.advanced(by: distance) != mapping {
          Issue.record(
            "\(says): \(position + distance): \(extent.mapping) of \(extent.layer?.path ?? "none")")
          return
        }
      }
      position += extent.length
    }
  }

  func walk(_ offset: GuestOffset, _ backing: BackingLayers) throws -> (Layer?, Mapping) {
    for layer in backing.layers {
      if offset >= NewestTables(of: layer).end { return (layer, .zero) }
      let mapping = try layer.mapping(at: offset, upTo: 1).mapping
      if mapping != .unallocated { return (layer, mapping) }
    }
    return (nil, .unallocated)
  }

  @Test("the map says what a walk down the layers says", arguments: 0..<12)
  func agreesWithWalk(seed: UInt64) throws {
    let chain = try RandomChain(seed: seed &+ 3000, depth: 6, sizeUnits: 600)
    let disk = try Disk.open(
      DeviceConfiguration(name: "vda", image: .qcow2(path: chain.top), isReadOnly: true))
    try disk.withLayers { (layers: DiskLayers) throws(ChainError) in
      let all = layers.backing.layers
      let size = disk.virtualSize
      let map = MergedMap(clusterSize: 512, budget: seed % 2 == 0 ? 1 << 20 : 2000)
      // As the chain changes: three layers, then two more on top, then the three upper ones gone.
      let stages = [Array(all.suffix(3)), all, Array(all.suffix(2))]
      for (version, layers) in stages.enumerated() {
        let backing = try BackingLayers(layers: layers, version: UInt64(version))
        // Half of the granules are looked up in some stages only.
        let limit = version == 1 ? size / 2 : size
        do {
          try expectWalk(map, backing, size: limit, "seed \(seed), stage \(version)")
        } catch {
          Issue.record("\(error)")
        }
      }
    }
    try disk.close()
  }
}
