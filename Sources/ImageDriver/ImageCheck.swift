// Looking an image over: every reference is counted, and compared with what the refcounts say.
//
//     header, L1 and L2 tables, snapshots, bitmaps  --count-->  references of each host cluster
//     refcount table and blocks                     --read--->  refcounts
//
//     refcount > references    a leak: space is lost, and nothing else
//     refcount < references    corruption: the cluster could be given away while somebody uses it
//     marked as copied, and the refcount is not one: corruption, an in-place write hits others
//
// The rules and the numbers are those of `qemu-img check`, so that both say the same of an image.
//
// An image is hostile here as everywhere. What lies behind the end of the file is corruption and is
// never followed; a table that many entries lead to is read once and counted as often (a corruption
// in it too), so the work is bounded by the L1 tables and the file and not by their product.
//
// Files: ImageCheckReferences counts, ImageCheckRefcounts compares, ImageCheckRepair lowers refcounts.

package import BlockIO
internal import HostSystem
internal import Qcow2Format

/// Checks a qcow2 image without opening it for use.
package enum ImageCheck {
  /// Compares refcounts with references and gives what is wrong; writes nothing.
  ///
  /// The image must not change meanwhile. Throws if the header cannot be used, if the image needs a
  /// feature that is not there, or if storage refuses; what is wrong behind the header is in the
  /// report.
  package static func run(storage: any BlockStorage) throws(ImageError) -> CheckReport {
    var check = try CheckRun(storage: storage)
    try check.run()
    return check.report
  }

  /// Lowers the refcounts of leaked clusters, and gives what is left.
  ///
  /// A cluster that has one reference by that is marked so in the active tables. In an image with
  /// other corruption, or with something that could not be checked, nothing is written: behind a broken
  /// entry, what looks leaked may be somebody's only data.
  package static func repairLeaks(storage: any BlockStorage) throws(ImageError) -> CheckReport {
    if storage.isReadOnly { throw .readOnly(path: storage.path) }
    var check = try CheckRun(storage: storage)
    try check.run()
    let found = check.report
    guard found.checkErrors == 0, found.corruptions == found.missingCopiedFlags, !found.isClean
    else { return found }
    try check.lowerRefcounts()
    var left = try run(storage: storage)
    left.leaksFixed = found.leaks - left.leaks
    return left
  }
}

/// One check on its way.
struct CheckRun {
  let storage: any BlockStorage
  let header: ImageHeader
  let geometry: Geometry
  /// The file's length in whole sectors.
  let fileLength: UInt64
  /// The clusters of the file; the last one may lie behind its end if something refers to it.
  var clusterCount: UInt64
  var counts: ReferenceCounts
  var report: CheckReport
  /// The L2 tables that are in the file, by their offset.
  var tables: [UInt64: TableUse] = [:]
  /// The active L1 table.
  var activeL1: [UInt64] = []
  /// The refcount table.
  var refcountTable: [UInt64] = []
  /// The clusters whose refcount is one.
  var usedOnce = ClusterSet()

  /// How many L1 entries lead to an L2 table.
  struct TableUse {
    var all = 0
    var active = 0
  }

  init(storage: any BlockStorage) throws(ImageError) {
    header = try ImageHeader.read(from: storage)
    if let feature = header.unsupportedFeatures().first {
      throw .unsupported(path: storage.path, feature: feature)
    }
    if header.geometry.hasExtendedL2 || header.geometry.hasDataFile {
      throw .unsupported(path: storage.path, feature: "checking this kind of image")
    }
    self.storage = storage
    geometry = header.geometry
    let size = try onStorage { () throws(StorageError) in try storage.size() }
    let cluster = UInt64(geometry.clusterSize)
    guard size / cluster < ReferenceCounts.maximumCapacity - 2 else {
      throw .unsupported(path: storage.path, feature: "a file of more than 2^31 clusters")
    }
    fileLength = (size + 511) & ~511
    clusterCount = (fileLength + cluster - 1) / cluster
    // A reference may reach less than one cluster behind the end.
    counts = ReferenceCounts(capacity: clusterCount + 1)
    report = CheckReport(totalClusters: geometry.guestClusterCount)
    // The header is there, whatever else can be read.
    report.imageEndOffset = HostOffset(cluster)
  }

  mutating func run() throws(ImageError) {
    reference(0, UInt64(geometry.clusterSize))
    activeL1 = try countL1(at: header.l1TableOffset, header.l1Size, isActive: true)
    try countSnapshots()
    for (offset, use) in tables.sorted(by: { $0.key < $1.key }) { try countTable(offset, use) }
    try countBitmaps()
    // Last, since a refcount block must not be anything else.
    try countRefcountStructures()
    try compare()
    try checkCopiedFlags()
  }

  /// Counts a use of all clusters that hold a byte of the range; false if it is not in the file.
  ///
  /// The last cluster of a file may be there in part only.
  @discardableResult
  mutating func reference(_ offset: UInt64, _ length: UInt64, times: Int = 1) -> Bool {
    if length == 0 { return true }
    let (end, overflow) = offset.addingReportingOverflow(length)
    guard !overflow, end < fileLength + UInt64(geometry.clusterSize) else {
      report.addCorruption(.outsideFile(offset: offset, length: length), times: times)
      return false
    }
    let last = geometry.clusterIndex(containing: end - 1)
    for cluster in geometry.clusterIndex(containing: offset)...last {
      counts.add(times, to: cluster)
    }
    clusterCount = max(clusterCount, last + 1)
    return true
  }

  /// Reads entries that lie in the file; behind its end they are zero.
  func readEntries(_ count: Int, at offset: UInt64) throws(ImageError) -> [UInt64] {
    let bytes = try readBytes(count * 8, at: offset)
    return (0..<count).map { BigEndian.uint64(bytes, at: $0 * 8) }
  }

  /// Reads bytes; behind the end of the file they are zero.
  func readBytes(_ count: Int, at offset: UInt64) throws(ImageError) -> [UInt8] {
    var bytes = [UInt8](repeating: 0, count: count)
    var failure: StorageError?
    bytes.withMutableBytes { span in
      do throws(StorageError) {
        try storage.readZeroFilled(into: &span, at: HostOffset(offset))
      } catch { failure = error }
    }
    if let failure { throw .storage(failure) }
    return bytes
  }
}
