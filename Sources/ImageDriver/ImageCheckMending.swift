internal import BlockIO
internal import HostSystem
internal import Qcow2Format

// The steps of a repair that change tables and refcount blocks where they are. ImageRepair has their order.

extension CheckRun {
  // MARK: - Entries

  /// Takes away what nobody reads from the entries of all tables.
  func mendEntries() throws(ImageError) {
    for table in l1Tables where isNothingElse(table) {
      try rewrite(table) { raw in
        let entry = L1Entry(rawValue: raw)
        if entry.tableOffset == 0 { return 0 }
        return L1Entry(rawValue: raw).withoutReservedBits.rawValue
      }
    }
    for (offset, use) in tables.sorted(by: { $0.key < $1.key }) where isNothingElse(offset, use) {
      try rewriteTable(offset) { form.mended($0) }
    }
  }

  /// Takes the mark for "only user" from entries of the active tables whose cluster has others.
  func clearMarks() throws(ImageError) {
    try changeMarks { isCopied, cluster in isCopied && !usedOnce.contains(cluster) }
  }

  /// Marks the entries of the active tables whose clusters have one reference.
  ///
  /// `isLowered` says that each refcount is what was counted; without, only what was found counts.
  func completeMarks(isLowered: Bool) throws(ImageError) {
    try changeMarks { isCopied, cluster in
      !isCopied && references(of: cluster) == 1 && counts[cluster] == 1
        && (isLowered || usedOnce.contains(cluster))
    }
  }

  /// Turns the marks of the active tables for which `isWrong` says so.
  private func changeMarks(
    _ isWrong: (_ isCopied: Bool, _ cluster: UInt64) -> Bool
  ) throws(ImageError) {
    for table in l1Tables where table.isActive && isNothingElse(table) {
      try rewrite(table) { raw in
        let entry = L1Entry(rawValue: raw)
        guard entry.tableOffset != 0 else { return raw }
        let cluster = geometry.clusterIndex(containing: entry.tableOffset)
        return isWrong(entry.isCopied, cluster) ? raw ^ CheckedEntry.copiedBit : raw
      }
    }
    for (offset, use) in tables.sorted(by: { $0.key < $1.key })
    where use.active > 0 && isNothingElse(offset, use) {
      try rewriteTable(offset) { entry in
        switch form.kind(entry) {
        case .normal, .zeroAllocated:
          let cluster = geometry.clusterIndex(containing: entry.raw.hostOffset)
          // What is in a data file has one user by definition.
          let turns =
            form.hasDataFile ? !entry.raw.isCopied : isWrong(entry.raw.isCopied, cluster)
          if !turns { return entry }
          var new = entry
          new.raw.rawValue ^= CheckedEntry.copiedBit
          return new
        case .compressed, .zero, .unallocated: return entry
        }
      }
    }
  }

  /// Whether an L2 table's cluster is only that: what is written there changes nothing else.
  private func isNothingElse(_ offset: UInt64, _ use: TableUse) -> Bool {
    let cluster = geometry.clusterIndex(containing: offset)
    return offset != 0 && geometry.offsetInCluster(offset) == 0 && cluster < clusterCount
      && counts[cluster] == use.all
  }

  private func isNothingElse(_ table: L1Table) -> Bool {
    if !table.isInFile { return false }
    let first = geometry.clusterIndex(containing: table.offset)
    let last = geometry.clusterIndex(containing: table.offset + UInt64(table.count * 8 - 1))
    return first != 0 && (first...last).allSatisfy { counts[$0] == 1 }
  }

  private func rewrite(
    _ table: L1Table, _ change: (UInt64) -> UInt64
  ) throws(ImageError) {
    // What an earlier step of this repair changed is on disk.
    let old = try readEntries(table.count, at: table.offset)
    for (index, raw) in old.enumerated() where raw != 0 {
      let new = change(raw)
      if new == raw { continue }
      // Eight aligned bytes never tear.
      try storage.replaceEntries([raw], with: [new], at: table.offset + UInt64(index * 8))
    }
  }

  private func rewriteTable(
    _ offset: UInt64, _ change: (CheckedEntry) -> CheckedEntry
  ) throws(ImageError) {
    let old = try readBytes(geometry.clusterSize, at: offset)
    var new = old
    var changed: Range<Int>?
    for index in 0..<form.entriesPerTable {
      let entry = old.withBytes { form.entry($0, index) }
      if entry.isEmpty { continue }
      let changedEntry = change(entry)
      if changedEntry == entry { continue }
      let place = index * form.entryBytes
      BigEndian.store(changedEntry.raw.rawValue, in: &new, at: place)
      if form.hasSubclusters { BigEndian.store(changedEntry.bitmap, in: &new, at: place + 8) }
      changed = (changed?.lowerBound ?? place)..<place + form.entryBytes
    }
    // Sectors arrive or not, each entry with its own: every mixture of old and new is sound.
    guard let changed else { return }
    try storage.replaceTable(
      Array(old[changed]), with: Array(new[changed]), at: offset + UInt64(changed.lowerBound))
  }

  // MARK: - Refcounts

  /// Raises every refcount that is lower than the references. Every block that is needed is there.
  func raiseRefcounts() throws(ImageError) {
    _ = try changeRefcounts { refcount, references in max(refcount, references) }
  }

  /// Lowers every refcount to the references; true if one is one now that was not.
  func lowerRefcounts() throws(ImageError) -> Bool {
    try changeRefcounts { refcount, references in min(refcount, references) }
  }

  private func changeRefcounts(
    _ rule: (_ refcount: UInt64, _ references: UInt64) -> UInt64
  ) throws(ImageError) -> Bool {
    precondition(
      !report.needsNewRefcounts, "refcount blocks that are something else are written to")
    var becomesOne = false
    for index in refcountTable.indices {
      guard case .at(let offset) = place(ofBlock: index) else { continue }
      let old = try readBytes(geometry.clusterSize, at: offset)
      var new = old
      let first = clusters(ofBlock: index).lowerBound
      var changed: Range<Int>?
      for position in 0..<geometry.refcountsPerBlock {
        let refcount = old.refcount(at: position, geometry)
        let wanted = rule(refcount, references(of: first + UInt64(position)))
        if wanted == refcount { continue }
        if wanted == 1 { becomesOne = true }
        RefcountBlock.set(wanted, in: &new, index: position, order: geometry.refcountOrder)
        changed = (changed?.lowerBound ?? position)..<position + 1
      }
      guard let changed else { continue }
      let order = geometry.refcountOrder
      let range = (changed.lowerBound << order) / 8..<(changed.upperBound << order + 7) / 8
      try storage.replaceTable(
        Array(old[range]), with: Array(new[range]), at: offset + UInt64(range.lowerBound))
    }
    return becomesOne
  }
}
