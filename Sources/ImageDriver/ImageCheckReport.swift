package import HostSystem

/// What a check of an image found, in the numbers of `qemu-img check`.
package struct CheckReport: Sendable, Equatable {
  /// Places where the image contradicts itself in a way that may cost data.
  package internal(set) var corruptions = 0
  /// Corruptions that a repair mended; they are not in `corruptions` any more.
  package internal(set) var corruptionsFixed = 0
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

  // What the corruptions are made of, for a repair: each of its steps mends one kind.

  /// Entries that can be mended without a change of what anybody reads.
  var mendableEntries = 0
  /// Among them are L1 entries with bits but no table, which make all other counts doubtful.
  var hasBareMarks = false
  /// Entries that name what is not there. What looks leaked may be what they should name.
  var brokenEntries = 0
  /// Something refers to clusters that are not known. Nothing may be written then.
  var hasUnknownReferences = false
  /// The bitmaps break the format.
  var hasBrokenBitmaps = false
  /// Snapshot entries without what version 3 asks for.
  var incompleteSnapshots = 0
  /// Refcounts that are lower than the references.
  var lowRefcounts = 0
  /// The refcount table or its blocks cannot hold what they should.
  var needsNewRefcounts = false
  /// Marks for "only user" that are missing: a write copies where it need not.
  var missingCopiedFlags = 0
  /// Marks for "only user" where there are others.
  var wrongCopiedFlags = 0

  init(totalClusters: UInt64) { self.totalClusters = totalClusters }

  /// Nothing was found.
  package var isClean: Bool {
    corruptions == 0 && leaks == 0 && checkErrors == 0 && leaksBehindEnd == 0
  }

  // MARK: - Finding

  /// Counts a corruption that is met `times` times.
  mutating func addCorruption(_ finding: CheckFinding, times: Int = 1) {
    corruptions += times
    keep(finding)
  }

  mutating func addBrokenEntry(_ finding: CheckFinding, times: Int = 1) {
    brokenEntries += times
    addCorruption(finding, times: times)
  }

  mutating func addMendableEntry(_ finding: CheckFinding, times: Int = 1) {
    mendableEntries += times
    addCorruption(finding, times: times)
  }

  mutating func addIncompleteSnapshot(id: String) {
    incompleteSnapshots += 1
    addCorruption(.snapshot(id: id, reason: "its entry is incomplete"))
  }

  mutating func addBrokenBitmaps(_ reason: String) {
    hasBrokenBitmaps = true
    addCorruption(.bitmaps(reason: reason))
  }

  mutating func addBrokenRefcounts(_ finding: CheckFinding) {
    needsNewRefcounts = true
    addCorruption(finding)
  }

  mutating func addCopiedFlag(_ finding: CheckFinding, isMissing: Bool, times: Int) {
    if isMissing { missingCopiedFlags += times } else { wrongCopiedFlags += times }
    addCorruption(finding, times: times)
  }

  mutating func addLeak(_ finding: CheckFinding) {
    leaks += 1
    keep(finding)
  }

  mutating func addError(_ finding: CheckFinding, times: Int = 1) {
    checkErrors += times
    keep(finding)
  }

  mutating func addUnknownReferences(_ finding: CheckFinding) {
    hasUnknownReferences = true
    addError(finding)
  }

  private mutating func keep(_ finding: CheckFinding) {
    if findings.count < Self.findingLimit { findings.append(finding) }
  }
}
