internal import BlockIO
internal import HostSystem
internal import Qcow2Format

// Mending leaks. The check found nothing that contradicts the references, so they are the truth.
//
//     1  autoclear bits that are not understood are cleared: their owner's clusters look leaked
//     2  sync
//     3  refcounts are lowered; a crash leaves the rest of the leaks
//     4  sync
//     5  entries of clusters that have one reference are marked; without the mark, a write copies
//     6  sync
//
// A mark is never written before its refcount: a mark on a cluster that is counted twice is corruption.

extension CheckRun {
  /// Lowers every refcount to the references, and completes the marks of the active tables.
  mutating func lowerRefcounts() throws(ImageError) {
    let known = header.autoclearFeatures & Self.bitmapsFeature
    if known != header.autoclearFeatures {
      // Order: cleared on disk before anything changes that an autoclear feature describes.
      try storage.writeEntries([known], at: 88)
      try sync()
    }
    for index in refcountTable.indices {
      guard case .at(let offset) = place(ofBlock: index) else { continue }
      try lowerBlock(index, at: offset)
    }
    // Order: refcounts, then the marks that rely on them.
    try sync()
    try completeMarks()
    try sync()
  }

  private func sync() throws(ImageError) {
    try onStorage { () throws(StorageError) in try storage.flush() }
  }

  private func lowerBlock(_ index: Int, at offset: UInt64) throws(ImageError) {
    var bytes = try readBytes(geometry.clusterSize, at: offset)
    let first = clusters(ofBlock: index).lowerBound
    var changed: Range<Int>?
    for position in 0..<geometry.refcountsPerBlock {
      let references = references(of: first + UInt64(position))
      if bytes.refcount(at: position, geometry) <= references { continue }
      RefcountBlock.set(references, in: &bytes, index: position, order: geometry.refcountOrder)
      changed = (changed?.lowerBound ?? position)..<position + 1
    }
    guard let changed else { return }
    let order = geometry.refcountOrder
    let range = (changed.lowerBound << order) / 8..<(changed.upperBound << order + 7) / 8
    try storage.writeTable(Array(bytes[range]), at: offset + UInt64(range.lowerBound))
  }

  /// Marks the entries of the active tables whose clusters have one reference.
  private func completeMarks() throws(ImageError) {
    try completeMarks(in: activeL1, at: header.l1TableOffset) { L1Entry(rawValue: $0).tableOffset }
    for (offset, use) in tables.sorted(by: { $0.key < $1.key }) where use.active > 0 {
      let entries = try readEntries(geometry.l2EntriesPerTable, at: offset)
      try completeMarks(in: entries, at: offset) { raw in
        let entry = L2Entry(rawValue: raw)
        return entry.isCompressed ? 0 : entry.hostOffset
      }
    }
  }

  private func completeMarks(
    in entries: [UInt64], at offset: UInt64, _ host: (UInt64) -> UInt64
  ) throws(ImageError) {
    for (index, raw) in entries.enumerated() where raw >> 63 == 0 && host(raw) != 0 {
      guard references(of: geometry.clusterIndex(containing: host(raw))) == 1 else { continue }
      // Eight aligned bytes never tear.
      try storage.writeEntries([raw | 1 << 63], at: offset + UInt64(index * 8))
    }
  }
}
