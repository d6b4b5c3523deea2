import TestSupport

/// What the images are like that a workload starts with.
struct Shape: Sendable {
  /// What the image has besides clusters.
  enum Feature: String, Sendable, CaseIterable {
    case plain
    case compressed
    case snapshots
    case extendedL2 = "extended-l2"
    case dataFile = "data-file"
    case rawDataFile = "raw-data-file"
    case bitmaps
    case rawTop = "raw"
    case luks
    /// Dirty, with clusters that are counted and not used.
    case leaks
    /// Dirty, with refcounts that are too low, as QEMU leaves lazy ones.
    case lowRefcounts = "low-refcounts"
    /// Dirty, with a refcount block missing.
    case missingBlock = "missing-block"
    /// The refcount table is nearly full.
    case fullTable = "full-table"
    /// The L1 table is nearly full.
    case fullL1 = "full-l1"
    case snapshotsExtended = "snapshots-extended-l2"
    case compressedSnapshots = "compressed-snapshots"
    case zstd
    case bitmapsFullL1 = "bitmaps-full-l1"
    /// A feature that nobody knows describes the disk's bytes.
    case unknownAutoclear = "unknown-autoclear"
  }

  var number: Int
  var feature: Feature
  var version = 3
  var clusterBits = 16
  var refcountBits = 16
  var isLazy = false
  /// Layers with the top.
  var depth = 1
  /// The lowest layer is raw.
  var hasRawBase = false
  /// Bytes that a layer below has more or less than the top.
  var baseSurplus = 0
  var size = 128 << 10
  var detectsZeroes = false
  var discards = true
  /// The host lets files share blocks.
  var sharesBlocks = false
  var seed: UInt64

  static let clusterBitsChoices = [9, 10, 11, 12, 13, 14, 16]
  /// How many shapes there are.
  static let count = Feature.allCases.count * clusterBitsChoices.count

  var hasSnapshots: Bool {
    switch feature {
    case .snapshots, .snapshotsExtended, .compressedSnapshots: true
    default: false
    }
  }
  var hasExtendedL2: Bool { feature == .extendedL2 || feature == .snapshotsExtended }
  var hasCompressed: Bool {
    feature == .compressed || feature == .compressedSnapshots || feature == .zstd
  }
  var hasDataFile: Bool { feature == .dataFile || feature == .rawDataFile }
  var hasBitmaps: Bool { feature == .bitmaps || feature == .bitmapsFullL1 }
  /// Clusters are lost, or counted too low, before anybody opens the image.
  var isDamaged: Bool {
    feature == .leaks || feature == .lowRefcounts || feature == .missingBlock
  }
  /// Lost clusters may stay: nobody looks for them.
  var mayLeak: Bool { version == 2 || feature == .fullTable }

  /// The shape of a number; the same for every run.
  init(_ number: Int) {
    self.number = number
    seed = UInt64(number) &* 0x5851_F42D_4C95_7F2D &+ 11
    var random = SeededGenerator(seed: seed)
    feature = Feature.allCases[number % Feature.allCases.count]
    clusterBits = Self.clusterBitsChoices[number / Feature.allCases.count]
    let refcountOrder = (number / Feature.allCases.count + number) % 7
    refcountBits = 1 << refcountOrder
    version = random.oneIn(5) ? 2 : 3
    depth = Int.random(in: 1...4, using: &random)
    isLazy = random.oneIn(4)
    hasRawBase = random.oneIn(3)
    detectsZeroes = random.oneIn(5)
    discards = !random.oneIn(4)
    size = clusterBits <= 10 ? 64 << 10 : clusterBits <= 12 ? 128 << 10 : 256 << 10
    if random.oneIn(2) { size -= 512 * Int.random(in: 1...60, using: &random) }
    baseSurplus = [0, 0, -7, 9][Int.random(in: 0..<4, using: &random)] * 3 * 512
    // Each mount derives the key anew, which takes as long as ten states of the others.
    if feature == .luks, clusterBits != 12 { feature = .plain }
    // Two MiB of disk take longer too.
    let isSlow = feature == .fullL1 || feature == .bitmapsFullL1
    if isSlow, clusterBits != 9, clusterBits != 13 {
      feature = feature == .fullL1 ? .snapshots : .bitmaps
    }
    restrict(&random)
    sharesBlocks = random.oneIn(2)
  }

  /// What the feature asks for, and what formats do not have together.
  private mutating func restrict(_ random: inout SeededGenerator) {
    switch feature {
    case .plain:
      // A disk of no bytes, which grows before anything else.
      if random.oneIn(3) { size = 0 }
    case .compressed, .zstd:
      refcountBits = max(refcountBits, 16)
      if feature == .zstd { version = 3 }
    case .snapshots, .compressedSnapshots, .snapshotsExtended:
      refcountBits = max(refcountBits, feature == .snapshots ? 4 : 16)
      depth = max(depth, 2)
    case .extendedL2: break
    case .dataFile: depth = min(depth, 3)
    case .rawDataFile: depth = 1
    case .bitmaps, .rawTop: break
    case .luks: size = min(size, 128 << 10)
    case .leaks, .lowRefcounts, .missingBlock, .unknownAutoclear: version = 3
    case .fullTable:
      clusterBits = 9
      refcountBits = random.oneIn(2) ? 64 : 32
      size = 64 << 10
    case .fullL1, .bitmapsFullL1:
      clusterBits = 9
      depth = 1
      size = (2 << 20) - 8 * 512
    }
    if hasExtendedL2 { clusterBits = clusterBits < 14 ? 14 : 16 }
    if hasExtendedL2 || hasDataFile || hasBitmaps || feature == .luks { version = 3 }
    if feature == .luks { clusterBits = max(clusterBits, 12) }
    if feature == .rawTop { depth = 1 }
    if feature == .fullTable { version = 3 }
    if version == 2 {
      refcountBits = 16
      isLazy = false
    }
    if depth == 1 { hasRawBase = false }
  }

  /// One line for people.
  var name: String {
    if feature == .rawTop { return "\(number): raw, \(size) bytes" }
    return "\(number): \(feature.rawValue), \(size) bytes, v\(version), clusters of "
      + "\(1 << clusterBits), refcounts of \(refcountBits) bits, \(depth) layers"
      + (isLazy ? ", lazy" : "") + (hasRawBase ? ", raw base" : "")
      + (sharesBlocks ? ", shared blocks" : "")
  }

  /// The kinds by which states are counted.
  var kinds: [String] {
    [
      "feature \(feature.rawValue)", "cluster \(1 << clusterBits)", "refcount \(refcountBits) bits",
      "version \(version)", "layers \(depth)", isLazy ? "lazy refcounts" : "",
      hasRawBase ? "raw base" : "", sharesBlocks ? "shared blocks" : "",
    ].filter { !$0.isEmpty }
  }
}
