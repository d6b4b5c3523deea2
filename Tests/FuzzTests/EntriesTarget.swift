import HostSystem

@testable import Qcow2Format

/// Words of tables. The first two bytes of the input make a geometry, each eight of the rest an entry.
enum EntriesTarget {
  static func run(_ bytes: [UInt8]) throws {
    var input = FuzzInput(bytes)
    let (bits, flags) = (input.byte(), input.byte())
    let size = input.number64() >> UInt64(flags >> 3 & 31)
    let geometry = try attempt {
      try Geometry(
        version: flags & 1 == 0 ? 3 : 2, clusterBits: Int(bits & 31), refcountOrder: Int(bits >> 5),
        virtualSize: size, hasExtendedL2: flags & 2 != 0, hasDataFile: flags & 4 != 0)
    }
    guard let geometry else { return }
    try claimReach(geometry)
    var count = 0
    while !input.isEmpty, count < 8 {
      let (first, second) = (input.number64(), input.number64())
      try run(first, second, geometry)
      count += 1
    }
    try claimRefcounts(bytes, geometry)
  }

  private static func claimReach(_ geometry: Geometry) throws {
    let tables = UInt64(geometry.l1EntriesNeeded)
    try claim(tables <= UInt64(Geometry.maximumL1TableBytes / 8), "too many L1 entries")
    try claim(
      tables * geometry.bytesPerL2Table >= geometry.virtualSize, "the tables are too few")
    guard geometry.virtualSize > 0 else { return }
    let last = geometry.virtualSize - 1
    try claim(geometry.l1Index(last) < geometry.l1EntriesNeeded, "the last byte has no L1 entry")
    try claim(geometry.l2Index(last) < geometry.l2EntriesPerTable, "the last byte has no L2 entry")
  }

  private static func run(_ first: UInt64, _ second: UInt64, _ geometry: Geometry) throws {
    let l1 = L1Entry(rawValue: first)
    if let table = try attempt({ try l1.table(in: geometry) }), let table {
      try claim(
        L1Entry(tableOffset: table, copied: l1.isCopied) == l1, "an L1 entry is made otherwise")
    }
    if let block = try attempt({ try RefcountTableEntry(rawValue: first).block(in: geometry) }),
      let block
    {
      try claim(
        RefcountTableEntry(blockOffset: block).rawValue == first, "a refcount table entry differs")
    }
    if let cluster = try attempt({ try BitmapTableEntry(rawValue: first).cluster(in: geometry) }),
      let cluster
    {
      try claim(BitmapTableEntry(offset: cluster).rawValue == first, "a bitmap table entry differs")
    }
    _ = try attempt { try L2Entry(rawValue: first).meaning(geometry) }
    guard let layout = try attempt({ try ClusterLayout(first, second, geometry) }) else { return }
    try claim(layout.allocated & layout.zero == 0, "a subcluster is data and zero")
    if case .compressed(let location) = layout.host {
      let clusters = location.hostClusters(clusterBits: geometry.clusterBits)
      try claim((1...3).contains(clusters.count), "a stream in \(clusters.count) clusters")
      try claim((1...2 * geometry.clusterSize).contains(location.byteCount), "a stream's length")
      return
    }
    let words = layout.words(geometry)
    let again = try ClusterLayout(words.first, words.second, geometry)
    // Outside of version 3 and of a data file, a mark without a cluster means nothing and is dropped.
    try claim(again == layout, "a layout is encoded otherwise: \(layout) \(again)")
  }

  private static func claimRefcounts(_ bytes: [UInt8], _ geometry: Geometry) throws {
    let order = geometry.refcountOrder
    var block = Array(bytes.prefix(64)) + [UInt8](repeating: 0, count: max(0, 64 - bytes.count))
    let count = (64 * 8) >> order
    let before = (0..<count).map { RefcountBlock.value(in: block.rawSpan, index: $0, order: order) }
    let place = Int(bytes.last ?? 0) % count
    let value = (bytes.first.map { UInt64($0) &* 0x0101_0101_0101_0101 } ?? 0)
    RefcountBlock.set(
      value & geometry.maximumRefcount, in: &block, index: place, order: order)
    for index in 0..<count {
      let found = RefcountBlock.value(in: block.rawSpan, index: index, order: order)
      let wanted = index == place ? value & geometry.maximumRefcount : before[index]
      try claim(found == wanted, "refcount \(index) is \(found), not \(wanted)")
    }
  }
}
