import Testing

@testable import Qcow2Format

@Suite("ClusterLayout", .tags(.format))
struct ClusterLayoutTests {
  /// How an image lays out clusters.
  struct Form: Sendable, CustomTestStringConvertible {
    var hasExtendedL2 = false
    var hasDataFile = false
    var testDescription: String { "extended \(hasExtendedL2), data file \(hasDataFile)" }

    func geometry() throws -> Geometry {
      try Geometry(
        version: 3, clusterBits: 16, refcountOrder: 4, virtualSize: 1 << 30,
        hasExtendedL2: hasExtendedL2, hasDataFile: hasDataFile)
    }
  }

  static let forms = [
    Form(), Form(hasExtendedL2: true), Form(hasDataFile: true),
    Form(hasExtendedL2: true, hasDataFile: true),
  ]

  @Test("an entry that was made says what it was made for", arguments: forms)
  func roundTrip(_ form: Form) throws {
    let geometry = try form.geometry()
    let all = geometry.allSubclusters
    var layouts: [ClusterLayout] = [
      .unallocated, ClusterLayout(host: .none, zero: all),
      ClusterLayout(host: .cluster(0x70000, copied: true), allocated: all),
      ClusterLayout(host: .cluster(0x70000, copied: true), zero: all),
    ]
    if !form.hasDataFile {
      layouts.append(ClusterLayout(host: .cluster(0x70000, copied: false), allocated: all))
    } else {
      // The first byte of a data file is a place too.
      layouts.append(ClusterLayout(host: .cluster(0, copied: true), allocated: all))
    }
    if form.hasExtendedL2 {
      layouts += [
        ClusterLayout(host: .cluster(0x70000, copied: true)),
        ClusterLayout(host: .cluster(0x70000, copied: true), allocated: 1, zero: 1 << 31),
        ClusterLayout(host: .cluster(0x70000, copied: true), allocated: ~2, zero: 2),
        ClusterLayout(host: .none, zero: 0x8000_0001),
      ]
    }
    for layout in layouts {
      let (first, second) = layout.words(geometry)
      #expect(try ClusterLayout(first, second, geometry) == layout)
      #expect(form.hasExtendedL2 || second == 0)
    }
  }

  @Test(
    "an extended entry that contradicts itself is corrupt",
    arguments: [
      // A subcluster that is data and zero; data without a host cluster; the zero flag of standard
      // entries; reserved bits; an unaligned host cluster; a compressed cluster with subclusters.
      (0x8000_0000_0007_0000, 1 << 32 | 1), (0, 1), (0x8000_0000_0007_0001, 1), (1, 0),
      (0x8100_0000_0007_0000, 1), (0x8000_0000_0007_0200, 1), (1 << 62 | 0x50000, 1),
    ] as [(UInt64, UInt64)])
  func corrupt(first: UInt64, second: UInt64) throws {
    let geometry = try Form(hasExtendedL2: true).geometry()
    #expect(throws: FormatError.self) { try ClusterLayout(first, second, geometry) }
  }

  @Test("no cluster of an image with a data file is compressed", arguments: [false, true])
  func compressedInDataFile(isExtended: Bool) throws {
    let geometry = try Form(hasExtendedL2: isExtended, hasDataFile: true).geometry()
    #expect(throws: FormatError.self) { try ClusterLayout(1 << 62 | 0x50000, 0, geometry) }
  }

  @Test("what is neither data nor zero is unallocated, but for compressed clusters")
  func unallocated() throws {
    let geometry = try Form(hasExtendedL2: true).geometry()
    let mixed = ClusterLayout(host: .cluster(0x70000, copied: true), allocated: 1, zero: 4)
    #expect(mixed.unallocated(in: 0b1111) == 0b1010)
    let compressed = try ClusterLayout(1 << 62 | 0x50000, 0, geometry)
    #expect(compressed.unallocated(in: .max) == 0)
    #expect(compressed.ownHost == nil && mixed.ownHost == 0x70000)
  }
}
