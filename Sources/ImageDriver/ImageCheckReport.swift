package import HostSystem
package import Qcow2Format

/// What a check of an image found, in the numbers of `qemu-img check`.
package struct CheckReport: Sendable, Equatable {
  /// Places where the image contradicts itself in a way that may cost data.
  package internal(set) var corruptions = 0
  /// Clusters that are counted more often than they are used: space that is lost, no data.
  package internal(set) var leaks = 0
  /// Leaks that a repair mended; they are not in `leaks` any more.
  package internal(set) var leaksFixed = 0
  /// Things that could not be checked.
  package internal(set) var checkErrors = 0
  /// Clusters behind the end of the file that are counted and not used. QEMU does not look there;
  /// they become leaks when the file grows.
  package internal(set) var leaksBehindEnd = 0
  /// The clusters of the disk.
  package let totalClusters: UInt64
  /// The clusters of the disk that have a place in the file.
  package internal(set) var allocatedClusters: UInt64 = 0
  /// Allocated clusters that do not follow the one before them.
  package internal(set) var fragmentedClusters: UInt64 = 0
  /// Allocated clusters that are compressed.
  package internal(set) var compressedClusters: UInt64 = 0
  /// Behind the last cluster that is in use.
  package internal(set) var imageEndOffset = HostOffset.zero
  /// The first things that were found, as evidence; no more than ``findingLimit``.
  package private(set) var findings: [CheckFinding] = []

  /// How many findings are kept.
  package static let findingLimit = 100

  /// Corruptions that a repair of leaks mends as well, see ``ImageCheck/repairLeaks(storage:)``.
  var missingCopiedFlags = 0

  init(totalClusters: UInt64) { self.totalClusters = totalClusters }

  /// Nothing was found.
  package var isClean: Bool {
    corruptions == 0 && leaks == 0 && checkErrors == 0 && leaksBehindEnd == 0
  }

  /// Counts a corruption that is met `times` times.
  mutating func addCorruption(_ finding: CheckFinding, times: Int = 1) {
    corruptions += times
    keep(finding)
  }

  mutating func addLeak(_ finding: CheckFinding) {
    leaks += 1
    keep(finding)
  }

  mutating func addError(_ finding: CheckFinding, times: Int = 1) {
    checkErrors += times
    keep(finding)
  }

  private mutating func keep(_ finding: CheckFinding) {
    if findings.count < Self.findingLimit { findings.append(finding) }
  }
}

/// One thing that is wrong with an image.
package enum CheckFinding: Sendable, Equatable, CustomStringConvertible {
  /// A table or a cluster lies behind the end of the file.
  case outsideFile(offset: UInt64, length: UInt64)
  /// An entry of a table breaks the format.
  case entry(FormatError)
  /// An L2 entry is both compressed and marked as the only user of its cluster.
  case compressedCopied(entry: UInt64)
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
  /// The snapshot directory cannot be read.
  case snapshotDirectory(FormatError)
  /// A snapshot's entry in the directory breaks the format.
  case snapshot(id: String, reason: String)
  /// The directory or a table of the persistent bitmaps breaks the format.
  case bitmaps(reason: String)

  /// One lower-case sentence with the evidence.
  package var description: String {
    switch self {
    case .outsideFile(let offset, let length):
      "\(length) bytes at \(hex(offset)) are in use and lie behind the end of the file"
    case .entry(let cause): cause.description
    case .compressedCopied(let entry):
      "L2 entry \(hex(entry)) is compressed and must not be marked as copied"
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
    case .snapshotDirectory(let cause): "the snapshots cannot be checked: \(cause)"
    case .snapshot(let id, let reason): "snapshot \(id): \(reason)"
    case .bitmaps(let reason): "persistent bitmaps: \(reason)"
    }
  }

  private func hex(_ value: UInt64) -> String { "0x" + String(value, radix: 16) }
}
