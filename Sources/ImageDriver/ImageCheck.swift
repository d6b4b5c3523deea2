// Looking an image over: every reference is counted, and compared with what the refcounts say.
//
//     header, L1 and L2 tables, snapshots, bitmaps, LUKS header  --count-->  references
//     refcount table and blocks                                  --read--->  refcounts
//
//     refcount > references    a leak: space is lost, and nothing else
//     refcount < references    corruption: the cluster could be given away while somebody uses it
//     marked as copied, and the refcount is not one: corruption, an in-place write hits others
//
// The rules and the numbers are those of `qemu-img check`, so that both say the same of an image. That
// goes as far as following a table to a place where no table can be: what its bytes would mean is
// counted as QEMU counts it, and never written to.
//
// An image is hostile here as everywhere. What lies behind the end of the file is corruption and is
// never followed; a table that many entries lead to is read once and counted as often (a corruption
// in it too), so the work is bounded by the L1 tables and the file and not by their product.
//
// Files: ImageCheckReferences and ImageCheckBitmaps count, CheckedEntry tells what an entry means,
// ImageCheckRefcounts compares, ImageCheckRepair and the files it names mend.

package import BlockIO
internal import HostSystem
internal import Qcow2Format

/// Checks a qcow2 image without opening it for use.
package enum ImageCheck {
  /// Hears now and then how much of the work is done.
  package typealias Progress = (_ done: Int, _ total: Int) -> Void

  /// Compares refcounts with references and gives what is wrong; writes nothing.
  ///
  /// The image must not change meanwhile. Throws if the header cannot be used, if the image needs a
  /// feature that nobody here knows, or if storage refuses; what is wrong behind the header is in the
  /// report.
  package static func run(
    storage: any BlockStorage, progress: @escaping Progress = { _, _ in }
  ) throws(ImageError) -> CheckReport {
    var check = try CheckRun(storage: storage, progress: progress)
    try check.run()
    return check.report
  }
}

/// One check on its way.
struct CheckRun {
  let storage: any BlockStorage
  let header: ImageHeader
  let geometry: Geometry
  let form: L2Form
  /// The file's length in whole sectors.
  let fileLength: UInt64
  /// The clusters of the file; the last one may lie behind its end if something refers to it.
  var clusterCount: UInt64
  var counts: ReferenceCounts
  var report: CheckReport
  /// The L2 tables that are in the file, by their offset.
  var tables: [UInt64: TableUse] = [:]
  /// The L1 tables that are in the file.
  var l1Tables: [L1Table] = []
  /// The refcount table.
  var refcountTable: [UInt64] = []
  /// How often the refcount table and its blocks take a cluster.
  var refcountClusters: [UInt64: Int] = [:]
  /// The clusters whose refcount is one.
  var usedOnce = ClusterSet()
  /// Clusters behind the file that the active tables point to all the same.
  var farClusters: Set<UInt64> = []
  /// The clusters behind the file that something names. A repair that took them would have them read
  /// through what names them.
  var outside = OutsideClusters()
  var misalignedTables = 0
  /// An L1 entry that has no more than a mark leads to the header, as QEMU counts it. A repair knows
  /// better: it leads nowhere, and the mark is taken away.
  var ignoresBareMarks = false
  let progress: ImageCheck.Progress

  /// How many L1 entries lead to an L2 table.
  struct TableUse {
    var all = 0
    var active = 0
  }

  struct L1Table {
    var offset: UInt64
    var count: Int
    /// Of the active table alone: those of thousands of snapshots do not fit in memory.
    var entries: [UInt64]
    var isActive: Bool
    var isInFile: Bool
  }

  init(
    storage: any BlockStorage, progress: @escaping ImageCheck.Progress = { _, _ in }
  ) throws(ImageError) {
    header = try ImageHeader.read(from: storage)
    if let feature = header.unknownFeatures().first {
      throw .unsupported(path: storage.path, feature: feature)
    }
    self.storage = storage
    self.progress = progress
    geometry = header.geometry
    form = L2Form(header)
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
    try countL1(at: header.l1TableOffset, header.l1Size, isActive: true)
    try countSnapshots()
    try countTables()
    countEncryptionHeader()
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
      report.addBrokenEntry(.outsideFile(offset: offset, length: length), times: times)
      if !overflow {
        let last = geometry.clusterIndex(containing: end - 1)
        outside.add(geometry.clusterIndex(containing: offset)..<last + 1)
      }
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
    return bytes.withBytes { bytes in
      (0..<count).map { BigEndian.uint64(bytes, at: $0 * 8) }
    }
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
