import Foundation
import Testing

@testable import Qcow2Format

/// A first cluster to start from.
struct OldCluster: CustomTestStringConvertible, Sendable {
  var testDescription: String
  var bytes: [UInt8]

  init(
    _ name: String, version: Int = 3, clusterBits: Int, backing: String? = nil,
    format: String? = nil, extra: [HeaderExtension] = []
  ) throws {
    testDescription = "\(name), clusters of \(1 << clusterBits)"
    bytes = try sampleCluster(
      version: version, clusterBits: clusterBits, backingFile: backing, backingFormat: format,
      extra: extra)
  }
}

func backingRewrite(
  _ bytes: [UInt8], _ name: String?, _ format: String?
) throws(FormatError) -> BackingRewrite {
  try ImageHeader.backingRewrite(
    firstCluster: bytes.span.bytes, backingFile: name, backingFormat: format)
}

@Suite("BackingRewrite", .tags(.format))
struct BackingRewriteTests {
  static let long = String(repeating: "directory/", count: 60) + "base.qcow2"

  static func olds() throws -> [OldCluster] {
    let unknown = HeaderExtension(type: 0x8000_0001, data: Array(1...40))
    var all: [OldCluster] = []
    for bits in [9, 10, 12, 13, 16, 21] {
      all += [
        try OldCluster("nothing", clusterBits: bits),
        try OldCluster("backing file", clusterBits: bits, backing: "b"),
        try OldCluster("both", clusterBits: bits, backing: "base.qcow2", format: "qcow2"),
        try OldCluster("version 2", version: 2, clusterBits: bits, backing: "b", format: "raw"),
        try OldCluster(
          "unknown extension", clusterBits: bits, backing: "b", format: "qcow2", extra: [unknown]),
      ]
      if bits > 10 {
        all += [
          try OldCluster("long name", clusterBits: bits, backing: long, format: "qcow2"),
          try OldCluster(
            "extensions over many sectors", clusterBits: bits, backing: long, format: "qcow2",
            extra: [.init(type: 5, data: [UInt8](repeating: 6, count: 1000)), unknown]),
        ]
      }
    }
    return all
  }

  static let news: [(String?, String?)] = [
    (nil, nil), ("base.qcow2", "qcow2"), ("base.raw", "raw"), ("x", nil), ("y", "parallels"),
    (long, "qcow2"), ("base.qcow2", nil),
  ]

  /// Every crash state of the rewrite: which sectors of the preparation are on disk.
  static func crashStates(_ old: [UInt8], _ rewrite: BackingRewrite) -> [[UInt8]] {
    var prepared = old
    var sectors: Set<Int> = []
    for piece in rewrite.preparation {
      prepared.replaceSubrange(piece.offset..<piece.offset + piece.bytes.count, with: piece.bytes)
      sectors.formUnion(piece.offset / 512...(piece.offset + piece.bytes.count - 1) / 512)
    }
    let order = sectors.sorted()
    return (0..<1 << order.count).map { subset in
      var state = old
      for (index, sector) in order.enumerated() where subset & (1 << index) != 0 {
        let range = sector * 512..<(sector + 1) * 512
        state.replaceSubrange(range, with: prepared[range])
      }
      return state
    }
  }

  static func applied(_ old: [UInt8], _ rewrite: BackingRewrite) -> [UInt8] {
    var bytes = old
    for piece in rewrite.preparation {
      bytes.replaceSubrange(piece.offset..<piece.offset + piece.bytes.count, with: piece.bytes)
    }
    bytes.replaceSubrange(0..<512, with: rewrite.flip)
    return bytes
  }

  /// Checks all that a rewrite promises, and returns the cluster after it.
  static func verify(_ old: [UInt8], _ name: String?, _ format: String?) throws -> [UInt8] {
    let rewrite = try backingRewrite(old, name, format)
    let before = try parse(old)
    #expect(rewrite.flip.count == 512)
    for piece in rewrite.preparation { #expect(piece.offset >= 512 && !piece.bytes.isEmpty) }
    for state in crashStates(old, rewrite) { #expect(try parse(state) == before) }
    let after = applied(old, rewrite)
    var expected = before
    expected.backingFile = name
    let parsed = try parse(after)
    #expect(parsed.backingFile == name)
    if name != nil { #expect(parsed.backingFormat == format) }
    let isKept = { (item: HeaderExtension) in
      ![HeaderExtension.backingFormatType, HeaderExtension.featureNamesType].contains(item.type)
    }
    #expect(parsed.extensions.filter(isKept) == before.extensions.filter(isKept))
    expected.extensions = parsed.extensions
    #expect(parsed == expected)
    return after
  }

  @Test("every crash state is the old header or the new one", arguments: try olds())
  func crashStates(old: OldCluster) throws {
    for (name, format) in Self.news {
      do {
        _ = try Self.verify(old.bytes, name, format)
      } catch FormatError.headerFull {
        // Small clusters have no room for long names next to the old one. Others always do.
        #expect(old.bytes.count <= 1024 || old.testDescription.hasPrefix("extensions"))
      }
    }
  }

  @Test("rewrites can follow each other for ever")
  func sequences() throws {
    var generator = SeededGenerator.announced("backing rewrites")
    for bits in [13, 16] {
      var bytes = try sampleCluster(clusterBits: bits)
      for _ in 0..<300 {
        let count = Int.random(in: 0...1023, using: &generator)
        let name = count == 0 ? nil : String(repeating: "n", count: count)
        let format =
          ["qcow2", "raw", nil, "parallels", "a"].randomElement(using: &generator) ?? nil
        bytes = try Self.verify(bytes, name, format)
      }
    }
  }

  @Test("in one sector the layout is QEMU's, and nothing needs preparation")
  func oneSector() throws {
    for version in [2, 3] {
      var header = try template(version: version, clusterBits: 9).header
      let bytes = try header.encoded()
      let rewrite = try backingRewrite(bytes, "base.qcow2", "qcow2")
      header.backingFile = "base.qcow2"
      header.backingFormat = "qcow2"
      #expect(rewrite.preparation.isEmpty)
      #expect(rewrite.flip == (try header.encoded()))
    }
  }

  @Test("the feature names survive a stream that drops the backing file")
  func namesSurvive() throws {
    let old = try sampleCluster(backingFile: "base.qcow2", backingFormat: "qcow2")
    let after = try Self.verify(old, nil, nil)
    #expect(try parse(after).featureNames.count == 8)
    let again = try Self.verify(after, "sn1.qcow2", "qcow2")
    #expect(try parse(again).featureNames.count == 8)
  }

  @Test("extensions that cannot move and have no room are an error, not a loss")
  func full() throws {
    let filler = HeaderExtension(type: 9, data: [UInt8](repeating: 1, count: 380))
    let old = try sampleCluster(
      clusterBits: 9, backingFile: nil, backingFormat: nil, extra: [filler])
    #expect(throws: FormatError.self) { try backingRewrite(old, "base.qcow2", "qcow2") }
  }

  @Test("a format that QEMU cannot read back is refused")
  func longFormat() throws {
    let old = try sampleCluster()
    #expect(throws: FormatError.self) { try backingRewrite(old, "b", "0123456789abcdef") }
  }

  @Test(
    "QEMU reads what a rewrite leaves", .tags(.qemu), .enabled(if: QemuImg.isExpected),
    arguments: ["512", "4096", "65536", "2M"], ["1.1", "0.10"])
  func qemu(clusterSize: String, compatibility: String) throws {
    try withTemporaryDirectory { directory in
      for name in ["base.qcow2", "sn1.qcow2"] {
        #expect(
          try QemuImg.run(["create", "-f", "qcow2", directory + "/" + name, "16M"]).status == 0)
      }
      #expect(try QemuImg.run(["create", "-f", "raw", directory + "/b.raw", "16M"]).status == 0)
      let path = directory + "/top.qcow2"
      let created = try QemuImg.run([
        "create", "-f", "qcow2", "-o", "cluster_size=\(clusterSize),compat=\(compatibility)",
        "-b", "sn1.qcow2", "-F", "qcow2", path,
      ])
      try #require(created.status == 0, "\(created.output)")
      for (name, format) in [
        ("base.qcow2", "qcow2"), ("b.raw", "raw"), (nil, nil), ("sn1.qcow2", "qcow2"),
      ] as [(String?, String?)] {
        var file = try readFile(path)
        let needed = ImageHeader.clusterSizeNeeded(prefix: file.span.bytes)
        let size = try #require(needed)
        let after = try Self.verify(Array(file.prefix(size)), name, format)
        file.replaceSubrange(0..<size, with: after)
        try Data(file).write(to: URL(fileURLWithPath: path))
        let information = try QemuImg.run(["info", path])
        #expect(information.status == 0, "\(information.output)")
        #expect(
          information.output.contains("backing file: \(name ?? "")") == (name != nil),
          "\(information.output)")
        if let format { #expect(information.output.contains("backing file format: \(format)")) }
        let checked = try QemuImg.run(["check", path])
        #expect(checked.status == 0, "\(checked.output)")
      }
    }
  }
}
