// Mending. The references are the truth: what the guest reads goes by them alone, and nothing of that
// changes. Refcounts, marks and feature bits follow them.
//
//     1  autoclear bits of features that are not understood; bitmaps that break the format    sync
//     2  entries lose bits that nobody reads (see CheckedEntry)                               sync
//     3  refcounts that are too low are raised, in place or in a new structure                sync
//     4  marks for "only user" go where there are others                                      sync
//     5  refcounts that are too high are lowered                                              sync
//     6  marks for "only user" are set where they are missing                                 sync
//     7  snapshot entries get what version 3 asks for                                         sync
//     8  if nothing is left to mend: the dirty and the corrupt bit are cleared                sync
//
// After each of them the image is better than before it, and reads the same: a crash leaves work, and the
// next repair takes it up. A refcount is raised before anything relies on it and lowered after; a mark
// is never on disk while the cluster is counted twice.
//
// Nothing is written to a place that is something else as well (a table that lies on guest data, a
// refcount block that is an L2 table): mending there would change the other. Nothing is written at
// all while part of the references is unknown. And while an entry names what is not there, leaks stay:
// what looks lost may be what the entry should name, and somebody may want to look for it.

package import BlockIO
internal import HostSystem
internal import Qcow2Format

/// How much a repair may change.
package enum RepairExtent: Sendable {
  /// Refcounts are lowered in an image that has no other fault.
  case leaks
  /// All that can be mended without a change of what the guest reads.
  case all
}

extension ImageCheck {
  /// Mends an image, and gives what is left and how much was mended.
  ///
  /// With `.leaks`, an image with other faults is only checked: behind a broken entry, what looks
  /// leaked may be somebody's only data. The image must not be open elsewhere. A repair that was cut
  /// off at any point leaves an image that reads as before; the next one finishes it.
  package static func repair(
    storage: any BlockStorage, _ extent: RepairExtent,
    progress: @escaping Progress = { _, _ in }
  ) throws(ImageError) -> CheckReport {
    if storage.isReadOnly { throw .readOnly(path: storage.path) }
    return try ImageRepair(storage: storage, progress: progress).run(extent)
  }
}

extension ImageCheck {
  /// Mends an image that was not closed, before it is written to again.
  ///
  /// The same as a repair of all, in half of its time where it finds nothing but leaks: it does not
  /// look twice.
  static func recover(storage: any BlockStorage) throws(ImageError) -> CheckReport {
    try ImageRepair(storage: storage, progress: { _, _ in }, looksAgain: false).run(.all)
  }
}

/// One repair: the order of its steps.
struct ImageRepair {
  let storage: any BlockStorage
  let progress: ImageCheck.Progress
  var looksAgain = true

  func run(_ extent: RepairExtent) throws(ImageError) -> CheckReport {
    var check = try checked(asQEMU: true)
    let found = check.report
    if found.hasUnknownReferences { return found }
    switch extent {
    case .leaks:
      if found.corruptions > found.missingCopiedFlags || found.checkErrors > 0 { return found }
    case .all: break
    }
    if found.isClean {
      try clearMarks(check.header)
      return found
    }
    try clearAutoclear(check)
    if found.hasBrokenBitmaps || found.hasBareMarks { check = try checked() }
    if check.report.mendableEntries > 0 {
      try check.mendEntries()
      // Order: before the refcounts of what the mended entries name are looked at.
      try sync()
      check = try checked()
    }
    let keepsLeaks = check.report.brokenEntries > 0 || check.report.mendableEntries > 0
    try raise(&check, keepsLeaks: keepsLeaks)
    if check.report.wrongCopiedFlags > 0 {
      try check.clearMarks()
      // Order: the mark goes before a refcount may drop to one, or it would be taken for right.
      try sync()
    }
    var isLowered = false
    if !keepsLeaks, check.report.leaks > 0 || check.report.leaksBehindEnd > 0 {
      isLowered = try check.lowerRefcounts()
      // Order: refcounts, then the marks that rely on them.
      try sync()
    }
    if isLowered || check.report.missingCopiedFlags > 0 {
      try check.completeMarks(isLowered: !keepsLeaks)
      try sync()
    }
    if !looksAgain, found.corruptions == 0, found.checkErrors == 0 {
      try clearMarks(check.header)
      return found
    }
    return try finish(found)
  }

  /// Looks the image over: as QEMU would for what is told, by the tables alone for what is mended.
  private func checked(asQEMU: Bool = false) throws(ImageError) -> CheckRun {
    var check = try CheckRun(storage: storage, progress: progress)
    check.ignoresBareMarks = !asQEMU
    try check.run()
    return check
  }

  /// Makes no refcount lower than the references.
  private func raise(_ check: inout CheckRun, keepsLeaks: Bool) throws(ImageError) {
    if check.report.needsNewRefcounts {
      guard check.outside.isComplete else { return }
      try check.rebuildRefcounts(keepsLeaks: keepsLeaks)
    } else if check.report.lowRefcounts > 0 {
      try check.raiseRefcounts()
      // Order: before marks and lower refcounts rely on them.
      try sync()
    } else {
      return
    }
    check = try checked()
  }

  /// Looks again, and clears the marks of an image that has no fault any more.
  private func finish(_ found: CheckReport) throws(ImageError) -> CheckReport {
    let check = try checked(asQEMU: true)
    var left = check.report
    left.leaksFixed = max(0, found.leaks - left.leaks)
    left.corruptionsFixed = max(0, found.corruptions - left.corruptions)
    if left.corruptions == 0, left.checkErrors == 0 { try clearMarks(check.header) }
    return left
  }

  // MARK: - Header bits

  /// Clears the autoclear bits of features whose owner's clusters look leaked, or cannot be followed.
  private func clearAutoclear(_ check: CheckRun) throws(ImageError) {
    let bits = check.header.autoclearFeatures
    var kept = bits & (ImageHeader.bitmapsFeature | ImageHeader.rawDataFeature)
    if check.report.hasBrokenBitmaps { kept &= ~ImageHeader.bitmapsFeature }
    if kept == bits { return }
    // Order: cleared on disk before anything changes that an autoclear feature describes.
    try storage.replaceEntries([bits], with: [kept], at: 88)
    try sync()
  }

  /// Clears the dirty and the corrupt bit.
  private func clearMarks(_ header: ImageHeader) throws(ImageError) {
    let bits = header.incompatibleFeatures
    let feature = ImageHeader.IncompatibleFeature.self
    let kept = bits & ~(feature.dirty | feature.corrupt)
    if kept == bits { return }
    // Order: after all that they warned of is mended on disk.
    try sync()
    try storage.replaceEntries([bits], with: [kept], at: ImageHeader.incompatibleFeaturesOffset)
    try sync()
  }

  private func sync() throws(ImageError) {
    try onStorage { () throws(StorageError) in try storage.flush() }
  }
}
