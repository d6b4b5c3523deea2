internal import Chain
internal import HostSystem

/// What a stream would do with a disk, in bytes.
package struct StreamEstimate: Sendable, Equatable {
  /// Bytes that would be copied.
  package private(set) var copy: UInt64 = 0
  /// Bytes that would become zero clusters.
  package private(set) var zero: UInt64 = 0
  /// Bytes that are there already, or that no layer has. Those of internal snapshots count as well.
  package private(set) var present: UInt64 = 0
  /// What the active image's file would grow by, tables included.
  package private(set) var needed: UInt64 = 0
  /// What is free where the active image lies.
  package internal(set) var free: UInt64 = 0

  /// Whether the copy fits as far as can be told.
  package var fits: Bool { needed <= free }

  /// Nothing to do.
  init() {}

  /// Adds what a plan says.
  mutating func add(_ extents: [StreamExtent]) {
    for extent in extents {
      switch extent.kind {
      case .copy: copy += extent.range.length
      case .zero: zero += extent.range.length
      case .skip: present += extent.range.length
      }
    }
  }

  /// Works out the space once all extents were added.
  ///
  /// A cluster costs 8 bytes of an L2 table and at most 8 of a refcount block, and tables come in
  /// whole clusters.
  mutating func settle(clusterSize: Int) {
    let cluster = UInt64(clusterSize)
    let (clusters, rest) = (copy + zero).quotientAndRemainder(dividingBy: cluster)
    let entries = clusters + (rest > 0 ? 1 : 0)
    if entries == 0 { return }
    let tables = (entries * 16 + cluster - 1) / cluster
    needed = (copy + cluster - 1) / cluster * cluster + tables * cluster
  }
}

extension StreamEstimate {
  /// Looks at the tables of a whole disk.
  static func of(_ disk: Disk, base: LayerID?) throws(ChainError) -> StreamEstimate {
    var estimate = StreamEstimate()
    for part in StreamPart.allCases {
      var position = GuestOffset.zero
      while true {
        let extents = try disk.streamExtents(of: part, from: position, base: base, limit: 1024)
        guard let last = extents.last else { break }
        estimate.add(extents)
        position = last.range.end
      }
    }
    estimate.settle(clusterSize: disk.clusterSize)
    estimate.free = freeBytes(beside: try disk.activePath)
    return estimate
  }

  /// Bytes that may still be written where a file lies; everything, if the host does not say.
  static func freeBytes(beside path: String) -> UInt64 {
    do {
      return try SystemCall.freeBytes(beside: path)
    } catch {
      // Without a figure nothing can be refused; a job that meets the end acts by on-error.
      return .max
    }
  }
}
