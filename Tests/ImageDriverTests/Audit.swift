import BlockIO
import HostSystem
import Qcow2Format
import TestSupport

@testable import ImageDriver

/// An independent look at an image: every reference counted, compared with the refcounts.
struct Audit {
  private(set) var faults: [String] = []
  private let storage: any BlockStorage
  private let header: ImageHeader
  private var references: [UInt64: Int] = [:]

  init(_ storage: any BlockStorage) throws {
    self.storage = storage
    header = try ImageHeader.read(from: storage)
    count(0, bytes: header.geometry.clusterSize)
    count(header.refcountTableOffset, bytes: header.refcountTableClusters * clusterSize)
    let table = try entries(header.refcountTableOffset, header.refcountTableClusters * perCluster)
    for entry in table where entry != 0 { count(entry, bytes: clusterSize) }
    try walk(header.l1TableOffset, header.l1Size, isActive: true)
    if header.snapshotCount > 0 {
      let bytes = try storage.bytes(at: header.snapshotsOffset, count: 4096)
      count(header.snapshotsOffset, bytes: 1)
      for entry in try SnapshotEntry.parseDirectory(
        bytes.rawSpan, count: header.snapshotCount, version: header.geometry.version)
      {
        try walk(entry.l1TableOffset, entry.l1Size, isActive: false)
      }
    }
    try compare(table)
  }

  private var clusterSize: Int { header.geometry.clusterSize }
  private var perCluster: Int { clusterSize / 8 }

  private func entries(_ offset: UInt64, _ count: Int) throws -> [UInt64] {
    let bytes = try storage.bytes(at: offset, count: count * 8)
    return (0..<count).map { BigEndian.uint64(bytes, at: $0 * 8) }
  }

  private mutating func count(_ offset: UInt64, bytes: Int) {
    let first = offset / UInt64(clusterSize)
    for cluster in first...(offset + UInt64(bytes) - 1) / UInt64(clusterSize) {
      references[cluster, default: 0] += 1
    }
  }

  private var copied: [UInt64] = []

  private mutating func walk(_ offset: UInt64, _ size: Int, isActive: Bool) throws {
    if size == 0 { return }
    count(offset, bytes: size * 8)
    for raw in try entries(offset, size) {
      let entry = L1Entry(rawValue: raw)
      guard let table = try entry.table(in: header.geometry) else { continue }
      count(table, bytes: clusterSize)
      if isActive, entry.isCopied { copied.append(table / UInt64(clusterSize)) }
      let words = try entries(table, perCluster)
      let perEntry = header.geometry.wordsPerL2Entry
      for index in stride(from: 0, to: words.count, by: perEntry) {
        let second = perEntry == 2 ? words[index + 1] : 0
        switch try ClusterLayout(words[index], second, header.geometry).host {
        case .none: break
        case .cluster(let host, let isOwn):
          if header.geometry.hasDataFile { break }
          count(host, bytes: clusterSize)
          if isActive, isOwn { copied.append(host / UInt64(clusterSize)) }
        case .compressed(let location): count(location.hostOffset, bytes: location.byteCount)
        }
      }
    }
  }

  private mutating func compare(_ table: [UInt64]) throws {
    let perBlock = UInt64(header.geometry.refcountsPerBlock)
    var blocks: [UInt64: [UInt8]] = [:]
    for (cluster, wanted) in references {
      let index = cluster / perBlock
      var found: UInt64 = 0
      if index < UInt64(table.count), table[Int(index)] != 0 {
        let block =
          try blocks[index] ?? storage.bytes(at: table[Int(index)], count: clusterSize)
        blocks[index] = block
        found = RefcountBlock.value(
          in: block.rawSpan, index: Int(cluster % perBlock), order: header.geometry.refcountOrder)
      }
      if found < UInt64(wanted) {
        faults.append("cluster \(cluster) has refcount \(found) and \(wanted) references")
      }
    }
    for cluster in copied where references[cluster] != 1 {
      faults.append("cluster \(cluster) is marked COPIED and has other users")
    }
  }
}
