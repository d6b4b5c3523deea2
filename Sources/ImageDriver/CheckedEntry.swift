internal import Qcow2Format

// What an L2 entry is to a check. `L2Entry.meaning` throws at the first thing that is wrong; a check has
// to say all that is wrong, count what the rest of the entry refers to, and know which bits can be
// mended without a change of what the guest reads:
//
//     bits that no writer sets                  cleared: QEMU reads the entry as if they were
//     "only user" on a compressed cluster       cleared: nothing is read by it
//     a bitmap beside a compressed cluster      cleared: nothing is read by it
//     a misaligned home of a cluster that has   dropped: the home is not read, the cluster reads as before
//       no data there
//
// All else names bytes that are wrong or unknown. It stays, and is said.

/// How L2 entries of one image look.
struct L2Form: Sendable {
  let geometry: Geometry

  init(_ header: ImageHeader) { geometry = header.geometry }

  /// Entries have 16 bytes, the second half a bitmap.
  var hasSubclusters: Bool { geometry.hasExtendedL2 }
  /// Data clusters are in another file.
  var hasDataFile: Bool { geometry.hasDataFile }

  /// The bytes of one entry.
  var entryBytes: Int { hasSubclusters ? 16 : 8 }
  /// The entries of a table, which is one cluster.
  var entriesPerTable: Int { geometry.clusterSize / entryBytes }

  /// What kind of cluster an entry names, whatever else is wrong with it.
  func kind(_ entry: CheckedEntry) -> CheckedEntry.Kind {
    if entry.raw.isCompressed { return .compressed }
    let hasHome = entry.raw.hostOffset != 0
    if entry.raw.rawValue & CheckedEntry.zeroBit != 0, !hasSubclusters {
      return hasHome ? .zeroAllocated : .zero
    }
    // The first byte of a data file is a place as well; the mark tells.
    return hasHome || hasDataFile && entry.raw.isCopied ? .normal : .unallocated
  }

  /// The faults of an entry by itself, as sentences; each is one corruption.
  func faults(of entry: CheckedEntry) -> [String] {
    var faults: [String] = []
    let kind = kind(entry)
    if kind != .compressed, entry.raw.rawValue & CheckedEntry.reservedBits != 0 {
      faults.append("reserved bits are set")
    }
    switch kind {
    case .compressed:
      if entry.raw.rawValue & CheckedEntry.copiedBit != 0 {
        faults.append("a compressed cluster is marked as copied")
      }
      if hasDataFile {
        faults.append("a compressed cluster cannot be in a data file")
      } else if entry.bitmap != 0 {
        faults.append("a compressed cluster has a subcluster bitmap")
      }
    case .normal, .zeroAllocated:
      if entry.bitmap >> 32 & entry.bitmap != 0 {
        faults.append("a subcluster is both allocated and zero")
      }
      if geometry.offsetInCluster(entry.raw.hostOffset) != 0 {
        faults.append("the host cluster is not aligned")
      }
    case .unallocated:
      if entry.bitmap & CheckedEntry.allocatedBits != 0 {
        faults.append("subclusters are allocated and have no host cluster")
      }
    case .zero: break
    }
    return faults
  }

  /// The entry without what can be mended; the same if there is nothing to mend.
  func mended(_ entry: CheckedEntry) -> CheckedEntry {
    var new = entry
    switch kind(entry) {
    case .compressed:
      if hasDataFile { return entry }
      new.raw.rawValue &= ~CheckedEntry.copiedBit
      new.bitmap = 0
    case .normal, .zeroAllocated:
      new.raw.rawValue &= ~CheckedEntry.reservedBits
      if geometry.offsetInCluster(entry.raw.hostOffset) != 0, !hasData(entry) {
        new.raw.rawValue = hasSubclusters ? 0 : CheckedEntry.zeroBit
        new.bitmap &= ~CheckedEntry.allocatedBits
      }
    case .unallocated, .zero: new.raw.rawValue &= ~CheckedEntry.reservedBits
    }
    return new
  }

  private func hasData(_ entry: CheckedEntry) -> Bool {
    hasSubclusters
      ? entry.bitmap & CheckedEntry.allocatedBits != 0 : kind(entry) != .zeroAllocated
  }
}

/// An L2 entry by its bits alone; `bitmap` is 0 where entries have none.
struct CheckedEntry: Equatable {
  var raw: L2Entry
  var bitmap: UInt64

  enum Kind {
    case compressed, normal, zeroAllocated, zero, unallocated
  }

  /// Whether nothing at all is set.
  var isEmpty: Bool { raw.rawValue == 0 && bitmap == 0 }

  static let zeroBit: UInt64 = 1
  static let copiedBit: UInt64 = 1 << 63
  /// Bits 1 to 8 and 56 to 61.
  static let reservedBits: UInt64 = 0x3f00_0000_0000_01fe
  /// The half of a bitmap that says which subclusters are allocated.
  static let allocatedBits: UInt64 = 0xffff_ffff
}
