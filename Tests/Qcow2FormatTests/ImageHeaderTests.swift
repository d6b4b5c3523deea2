import Testing

@testable import Qcow2Format

/// A field of a valid header set to a value, and whether the header stays valid.
struct FieldCase: CustomTestStringConvertible, Sendable {
  var offset: Int
  var width: Int
  var value: UInt64
  var isValid: Bool

  init(_ offset: Int, _ width: Int, _ value: UInt64, _ isValid: Bool) {
    (self.offset, self.width, self.value, self.isValid) = (offset, width, value, isValid)
  }

  var testDescription: String { "field at \(offset) = \(value): \(isValid ? "valid" : "refused")" }
}

@Suite("ImageHeader", .tags(.format))
struct ImageHeaderTests {
  static let fieldCases: [FieldCase] = [
    .init(0, 4, 0x5146_49fa, false),
    .init(4, 4, 1, false), .init(4, 4, 4, false),
    .init(8, 8, 111, false), .init(8, 8, 65536 - 10, true), .init(8, 8, 65536, false),
    .init(8, 8, .max, false),
    .init(16, 4, 1023, true), .init(16, 4, 1024, false), .init(16, 4, 0xffff_ffff, false),
    .init(20, 4, 8, false), .init(20, 4, 22, false), .init(20, 4, 0xffff_ffff, false),
    .init(24, 8, 512 << 20, true), .init(24, 8, (512 << 20) + 512, false),
    .init(24, 8, .max, false),
    .init(32, 4, 1, true), .init(32, 4, 2, false), .init(32, 4, 3, false),
    .init(36, 4, 0, false), .init(36, 4, 4 << 20, true), .init(36, 4, (4 << 20) + 1, false),
    .init(40, 8, 0, false), .init(40, 8, 65536 + 512, false),
    .init(40, 8, 1 << 50, true), .init(40, 8, 0x7fff_ffff_ffff_0000, false),
    .init(40, 8, 0xffff_ffff_ffff_0000, false),
    .init(48, 8, 0, false), .init(48, 8, 1, false), .init(48, 8, 0x7fff_ffff_ffff_0000, false),
    .init(56, 4, 0, false), .init(56, 4, 128, true), .init(56, 4, 129, false),
    .init(60, 4, 1, false),
    .init(64, 8, 1, false),
    .init(72, 8, 1, true), .init(72, 8, 8, false), .init(72, 8, 1 << 63, true),
    .init(80, 8, .max, true), .init(88, 8, .max, true),
    .init(96, 4, 6, true), .init(96, 4, 7, false),
    .init(100, 4, 103, false), .init(100, 4, 105, false), .init(100, 4, 65544, false),
    .init(104, 1, 1, false), .init(104, 1, 2, false),
    .init(116, 4, 16, false),
    .init(132, 4, 65536, false), .init(132, 4, 0xffff_ffff, false),
  ]

  @Test("every field is taken inside of its bounds and refused outside", arguments: fieldCases)
  func bounds(_ item: FieldCase) throws {
    var bytes = try sampleCluster()
    for index in 0..<item.width {
      bytes[item.offset + index] = UInt8(
        truncatingIfNeeded: item.value >> UInt64(8 * (item.width - 1 - index)))
    }
    if item.isValid {
      _ = try parse(bytes)
    } else {
      #expect(throws: FormatError.self) { try parse(bytes) }
    }
  }

  @Test("what was encoded parses to the same header", arguments: [2, 3], [9, 10, 12, 13, 16, 21])
  func roundTrip(version: Int, clusterBits: Int) throws {
    var header = try template(
      version: version, clusterBits: clusterBits, backingFile: "../b\u{e4}se.qcow2",
      backingFormat: "qcow2", lazyRefcounts: version == 3
    ).header
    header.extensions.append(HeaderExtension(type: 0x1234_5678, data: [1, 2, 3]))
    header.snapshotCount = 65536
    header.snapshotsOffset = 1 << 30
    if version == 3 {
      header.incompatibleFeatures = 1 | 8
      header.compressionType = .zstd
      header.autoclearFeatures = 1 << 40
      header.headerLength = 128
      header.unknownHeaderBytes = Array(1...16)
    }
    let bytes = try header.encoded()
    #expect(bytes.count == 1 << clusterBits)
    #expect(try parse(bytes) == header)
  }

  @Test("the prefix says how much to read")
  func clusterSizeNeeded() throws {
    var bytes = try sampleCluster(clusterBits: 12)
    #expect(ImageHeader.clusterSizeNeeded(prefix: bytes.span.bytes) == 4096)
    #expect(ImageHeader.clusterSizeNeeded(prefix: bytes.span.bytes.extracting(first: 23)) == nil)
    bytes[23] = 40
    #expect(ImageHeader.clusterSizeNeeded(prefix: bytes.span.bytes) == 512)
    bytes[0] = 0
    #expect(ImageHeader.clusterSizeNeeded(prefix: bytes.span.bytes) == nil)
  }

  @Test("a header that is cut anywhere is refused")
  func truncation() throws {
    let bytes = try sampleCluster(clusterBits: 9)
    for count in 0..<512 {
      #expect(throws: FormatError.self) { try parse(Array(bytes.prefix(count))) }
    }
  }

  @Test("the first missing magic byte makes it another format")
  func notQcow2() {
    #expect(throws: FormatError.notQcow2) { try parse([UInt8](repeating: 0, count: 4096)) }
    #expect(throws: FormatError.notQcow2) { try parse([]) }
  }

  @Test("what chainfs cannot do is named")
  func unsupportedFeatures() throws {
    var header = try parse(sampleCluster())
    #expect(header.unsupportedFeatures() == [])
    header.incompatibleFeatures = 1 | 2 | 8
    #expect(header.unsupportedFeatures() == [])
    #expect(header.isDirty && header.isCorrupt)
    header.encryption = .aes
    header.incompatibleFeatures = 4 | 16 | 1 << 5 | 1 << 63
    header.extensions.append(
      HeaderExtension(
        type: HeaderExtension.featureNamesType,
        data: [0, 5] + Array("time travel".utf8) + [UInt8](repeating: 0, count: 35)))
    #expect(
      header.unsupportedFeatures() == [
        "AES encryption", "time travel", "unknown incompatible feature bit 63",
      ])
  }

  @Test("where the LUKS header is has to be there, once, aligned and bounded, and only with LUKS")
  func encryptionHeader() throws {
    func cluster(_ areas: [FileArea], method: UInt8 = 2) throws -> [UInt8] {
      var extra: [HeaderExtension] = []
      for area in areas {
        var data = [UInt8](repeating: 0, count: 16)
        BigEndian.store(area.offset, in: &data, at: 0)
        BigEndian.store(area.byteCount, in: &data, at: 8)
        extra.append(HeaderExtension(type: HeaderExtension.encryptionType, data: data))
      }
      var bytes = try sampleCluster(extra: extra)
      bytes[35] = method
      return bytes
    }
    let good = FileArea(offset: 0x40000, byteCount: 0x1f9000)
    let header = try parse(cluster([good]))
    #expect(header.encryptionHeader == good && header.unsupportedFeatures() == [])
    #expect(header.geometry.clusters(of: good) == 4..<36)
    for area in [
      FileArea(offset: 0x40200, byteCount: 1), FileArea(offset: 0, byteCount: 1),
      FileArea(offset: 0x40000, byteCount: 0), FileArea(offset: 0x40000, byteCount: (64 << 20) + 1),
      FileArea(offset: 0x7fff_ffff_ffff_0000, byteCount: 1 << 20),
    ] {
      #expect(throws: FormatError.self) { try parse(cluster([area])) }
    }
    #expect(throws: FormatError.self) { try parse(cluster([])) }
    #expect(throws: FormatError.self) { try parse(cluster([good, good])) }
    #expect(throws: FormatError.self) { try parse(cluster([good], method: 0)) }
    #expect(throws: FormatError.self) { try parse(cluster([good], method: 1)) }
  }

  @Test("the names that QEMU gives to feature bits are written and read")
  func featureNames() throws {
    let names = try parse(sampleCluster()).featureNames
    #expect(names.count == 8)
    #expect(names.first == FeatureName(kind: .incompatible, bit: 0, name: "dirty bit"))
    #expect(names.last == FeatureName(kind: .autoclear, bit: 1, name: "raw external data"))
    #expect(FeatureName.rows(of: [7, 0] + [UInt8](repeating: 65, count: 46)).isEmpty)
    #expect(FeatureName.rows(of: [0, 255] + [UInt8](repeating: 65, count: 47)).count == 1)
  }

  @Test("a backing name that is not text is refused, one with a NUL ends there")
  func backingNameText() throws {
    var bytes = try sampleCluster()
    let offset = Int(BigEndian.uint64(bytes, at: 8))
    bytes[offset + 4] = 0
    #expect(try parse(bytes).backingFile == "base")
    bytes[offset] = 0xff
    #expect(throws: FormatError.nameNotText(field: "backing file name")) { try parse(bytes) }
    bytes[offset] = 0
    #expect(try parse(bytes).backingFile == nil)
  }

  @Test("an update of fields changes nothing but them")
  func updatingFields() throws {
    let bytes = try sampleCluster(clusterBits: 13, extra: [.init(type: 77, data: [9])])
    var header = try parse(bytes)
    header.refcountTableOffset = 1 << 20
    header.refcountTableClusters = 3
    header.autoclearFeatures = 1
    header.incompatibleFeatures = 1
    let sector = header.updatingFields(of: Array(bytes.prefix(512)))
    #expect(try parse(sector + bytes.dropFirst(512)) == header)
    let unchanged = try parse(bytes).updatingFields(of: Array(bytes.prefix(512)))
    #expect(unchanged == Array(bytes.prefix(512)))
  }

  @Test("names that QEMU cannot read back are not written")
  func longNames() throws {
    var header = try parse(sampleCluster())
    header.backingFile = String(repeating: "n", count: 1023)
    _ = try header.encoded()
    header.backingFile = String(repeating: "n", count: 1024)
    #expect(throws: FormatError.self) { try header.encoded() }
    header.backingFile = "a\0b"
    #expect(throws: FormatError.self) { try header.encoded() }
    header.backingFile = "base"
    header.backingFormat = "0123456789abcde"
    _ = try header.encoded()
    header.backingFormat = "0123456789abcdef"
    #expect(throws: FormatError.self) { try header.encoded() }
  }

  @Test("a header with flipped bits is parsed or refused, never more", arguments: [2, 3], [9, 12])
  func bitFlips(version: Int, clusterBits: Int) throws {
    var generator = SeededGenerator.announced("header bit flips")
    let valid = try sampleCluster(
      version: version, clusterBits: clusterBits, extra: [.init(type: 1 << 31, data: [1])])
    for _ in 0..<4000 {
      var bytes = valid
      for _ in 0..<Int.random(in: 1...6, using: &generator) {
        let place = Int.random(in: 4..<200, using: &generator)
        bytes[place] ^= 1 << UInt8.random(in: 0..<8, using: &generator)
      }
      guard let header = try? parse(bytes), let again = try? header.encoded() else { continue }
      #expect(try parse(again) == header)
    }
  }
}
