import HostSystem
import Qcow2Format
import TestSupport

/// What somebody else left in an image before chainfs sees it.
enum Damage {
  /// The image with what its shape asks for.
  static func apply(_ shape: Shape, to bytes: SparseBytes) throws -> SparseBytes {
    switch shape.feature {
    case .leaks: try edited(bytes, isDirty: true) { $0.leak() }
    case .lowRefcounts: try edited(bytes, isDirty: true) { $0.lower(shape.seed) }
    case .missingBlock: try edited(bytes, isDirty: true) { $0.dropBlock() }
    case .fullTable: try edited(bytes, isDirty: false) { $0.fillTable() }
    case .unknownAutoclear: try edited(bytes, isDirty: false) { $0.bytes.put([0x80], at: 88) }
    default: bytes
    }
  }

  private static func edited(
    _ bytes: SparseBytes, isDirty: Bool, _ body: (inout RefcountEditor) -> Void
  ) throws -> SparseBytes {
    let cluster = bytes.bytes(0, 65536)
    var editor = RefcountEditor(bytes: bytes, header: try ImageHeader.parse(cluster.rawSpan))
    body(&editor)
    if isDirty {
      editor.bytes.put([1], at: ImageHeader.incompatibleFeaturesOffset + 7)
    }
    return editor.bytes
  }
}

/// Changes refcounts where they are.
private struct RefcountEditor {
  var bytes: SparseBytes
  let header: ImageHeader

  private var geometry: Geometry { header.geometry }
  private var tableEntries: Int { header.refcountTableClusters * geometry.clusterSize / 8 }

  private func block(_ index: Int) -> UInt64 {
    let raw = bytes.bytes(header.refcountTableOffset + UInt64(index * 8), 8)
    return BigEndian.uint64(raw, at: 0)
  }

  private mutating func setBlock(_ index: Int, to offset: UInt64) {
    var raw = [UInt8](repeating: 0, count: 8)
    BigEndian.store(offset, in: &raw, at: 0)
    bytes.put(raw, at: header.refcountTableOffset + UInt64(index * 8))
  }

  private mutating func change(_ index: Int, _ body: (_ position: Int, UInt64) -> UInt64) {
    let place = block(index)
    var content = bytes.bytes(place, geometry.clusterSize)
    for position in 0..<geometry.refcountsPerBlock {
      let old = RefcountBlock.value(
        in: content.rawSpan, index: position, order: geometry.refcountOrder)
      let new = body(position, old)
      if new != old {
        RefcountBlock.set(new, in: &content, index: position, order: geometry.refcountOrder)
      }
    }
    bytes.put(content, at: place)
  }

  /// Counts some clusters that nobody uses.
  mutating func leak() { change(0) { position, old in old == 0 && position % 3 == 0 ? 1 : old } }

  /// Forgets some clusters that are used, but never the header and the tables of refcounts.
  mutating func lower(_ seed: UInt64) {
    var random = SeededGenerator(seed: seed)
    let table = Int(geometry.clusterIndex(containing: header.refcountTableOffset))
    let own = Int(geometry.clusterIndex(containing: block(0)))
    change(0) { position, old in
      position == 0 || position == table || position == own || !random.oneIn(3) ? old : 0
    }
  }

  /// Loses the first refcount block.
  mutating func dropBlock() { setBlock(0, to: 0) }

  /// Counts nearly every cluster that the table has room for.
  mutating func fillTable() {
    let perBlock = UInt64(geometry.refcountsPerBlock)
    for index in 0..<tableEntries {
      if block(index) == 0 {
        setBlock(index, to: UInt64(index) * perBlock << UInt64(geometry.clusterBits))
      }
      let free = index == tableEntries - 1 ? geometry.refcountsPerBlock - 2 : .max
      change(index) { position, old in old == 0 && position < free ? 1 : old }
    }
  }
}
