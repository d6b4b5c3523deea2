package import Qcow2Format

/// One thing that is wrong with an image.
package enum CheckFinding: Sendable, Equatable, CustomStringConvertible {
  /// What an L1 entry's bits say that no writer says.
  package enum L1Fault: Sendable, Equatable {
    /// A bit that no writer sets.
    case reservedBits
    /// A table where none can be.
    case misaligned
  }

  /// A table or a cluster lies behind the end of the file.
  case outsideFile(offset: UInt64, length: UInt64)
  /// An L1 entry breaks the format.
  case l1Entry(UInt64, L1Fault)
  /// An L2 entry breaks the format.
  case l2Entry(UInt64, bitmap: UInt64, reason: String)
  /// An entry of the refcount table breaks the format.
  case refcountTableEntry(FormatError)
  /// A refcount block is used for something else as well.
  case refcountBlockShared(block: Int, references: Int)
  /// A cluster has more references than its refcount says.
  case refcountTooLow(cluster: UInt64, refcount: UInt64, references: UInt64)
  /// A cluster has fewer references than its refcount says.
  case leaked(cluster: UInt64, refcount: UInt64, references: UInt64)
  /// A cluster has more references than a refcount can hold.
  case tooManyReferences(cluster: UInt64, references: Int)
  /// An entry's mark for "only user" and the refcount contradict each other.
  case copiedFlag(table: String, entry: UInt64, isOnlyUser: Bool)
  /// The refcounts of these clusters cannot be read.
  case refcountsUnreadable(clusters: Range<UInt64>)
  /// So many L2 tables lie where no table can be that the rest was not looked at.
  case tooManyMisalignedTables(limit: Int)
  /// The snapshot directory cannot be read.
  case snapshotDirectory(FormatError)
  /// A snapshot's entry in the directory breaks the format.
  case snapshot(id: String, reason: String)
  /// An image with a data file cannot have snapshots, and has.
  case snapshotsWithDataFile(count: Int)
  /// The directory or a table of the persistent bitmaps breaks the format.
  case bitmaps(reason: String)
  /// The clusters of the LUKS header are not known.
  case encryptionHeader(reason: String)

  /// One lower-case sentence with the evidence.
  package var description: String {
    switch self {
    case .outsideFile(let offset, let length):
      "\(length) bytes at \(hex(offset)) are in use and lie behind the end of the file"
    case .l1Entry(let entry, .reservedBits): "L1 entry \(hex(entry)): reserved bits are set"
    case .l1Entry(let entry, .misaligned):
      "L1 entry \(hex(entry)): the L2 table is not aligned"
    case .l2Entry(let entry, let bitmap, let reason):
      "L2 entry \(hex(entry))\(bitmap == 0 ? "" : " with bitmap \(hex(bitmap))"): \(reason)"
    case .refcountTableEntry(let cause): cause.description
    case .refcountBlockShared(let block, let references):
      "refcount block \(block) is in use \(references) times"
    case .refcountTooLow(let cluster, let refcount, let references):
      "cluster \(cluster) has refcount \(refcount) and \(references) references"
    case .leaked(let cluster, let refcount, let references):
      "cluster \(cluster) leaked: it has refcount \(refcount) and \(references) references"
    case .tooManyReferences(let cluster, let references):
      "cluster \(cluster) has \(references) references, more than a refcount can hold"
    case .copiedFlag(let table, let entry, let isOnlyUser):
      isOnlyUser
        ? "\(table) entry \(hex(entry)) is not marked as copied, and its refcount is one"
        : "\(table) entry \(hex(entry)) is marked as copied, and its refcount is not one"
    case .refcountsUnreadable(let clusters):
      "the refcounts of clusters \(clusters.lowerBound) to \(clusters.upperBound - 1)"
        + " cannot be read"
    case .tooManyMisalignedTables(let limit):
      "more than \(limit) L2 tables are not aligned; the others were not looked at"
    case .snapshotDirectory(let cause): "the snapshots cannot be checked: \(cause)"
    case .snapshot(let id, let reason): "snapshot \(id): \(reason)"
    case .snapshotsWithDataFile(let count):
      "\(count) snapshots in an image with an external data file"
    case .bitmaps(let reason): "persistent bitmaps: \(reason)"
    case .encryptionHeader(let reason): "the LUKS header cannot be checked: \(reason)"
    }
  }

  private func hex(_ value: UInt64) -> String { "0x" + String(value, radix: 16) }
}
