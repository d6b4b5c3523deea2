import Foundation
import Testing

@testable import Qcow2Format

@Suite("ImageTemplate", .tags(.format))
struct ImageTemplateTests {
  @Test("every cluster of a new image is counted once", arguments: [9, 12, 16, 21], 0...6)
  func refcounts(clusterBits: Int, order: Int) throws {
    let image = try template(
      clusterBits: clusterBits, refcountOrder: order, virtualSize: 64 << 20)
    let header = try parse(image.firstCluster)
    #expect(header == image.header)
    let clusters = Int(image.fileLength) >> clusterBits
    let block = 1 + UInt64(header.refcountTableClusters)
    let blocks = image.tables(block..<block + 1)
    let counts = (0..<header.geometry.refcountsPerBlock).map {
      RefcountBlock.value(in: blocks.span.bytes, index: $0, order: order)
    }
    #expect(counts.prefix(clusters).allSatisfy { $0 == 1 })
    #expect(counts.dropFirst(clusters).allSatisfy { $0 == 0 })
    #expect(image.fileLength.isMultiple(of: 1 << UInt64(clusterBits)))
  }

  @Test("the size is rounded up, the largest size fits, and one more is refused")
  func sizes() throws {
    #expect(try template(virtualSize: 1).header.geometry.virtualSize == 512)
    let largest: UInt64 = (4 << 20) << 15
    #expect(try template(clusterBits: 9, virtualSize: largest).header.l1Size == 4 << 20)
    #expect(throws: FormatError.self) { try template(clusterBits: 9, virtualSize: largest + 1) }
    #expect(throws: FormatError.self) { try template(virtualSize: .max) }
  }

  @Test("lazy refcounts need version 3")
  func lazyRefcounts() throws {
    #expect(try template(lazyRefcounts: true).header.compatibleFeatures == 1)
    #expect(throws: FormatError.self) { try template(version: 2, lazyRefcounts: true) }
  }

  @Test(
    "QEMU finds no fault in a new image", .tags(.qemu), .enabled(if: QemuImg.isExpected),
    arguments: [
      (2, 9, 4), (2, 16, 4), (2, 21, 4), (3, 9, 0), (3, 9, 6), (3, 12, 3), (3, 13, 5), (3, 16, 4),
      (3, 16, 0), (3, 16, 6), (3, 21, 4), (3, 21, 1),
    ], [0, 1, 64 << 20, 1 << 36] as [UInt64])
  func qemu(layout: (version: Int, clusterBits: Int, order: Int), size: UInt64) throws {
    try withTemporaryDirectory { directory in
      let base = directory + "/base.qcow2"
      _ = try QemuImg.run(["create", "-f", "qcow2", base, "1M"])
      let image = try template(
        version: layout.version, clusterBits: layout.clusterBits, refcountOrder: layout.order,
        virtualSize: size, backingFile: "base.qcow2", backingFormat: "qcow2",
        lazyRefcounts: layout.version == 3)
      let path = directory + "/new.qcow2"
      try write(image, to: path)
      let checked = try QemuImg.run(["check", path])
      #expect(checked.status == 0, "\(checked.output)")
      #expect(checked.output.contains("No errors were found"), "\(checked.output)")
      let information = try QemuImg.run(["info", path])
      #expect(information.output.contains("backing file: base.qcow2"), "\(information.output)")
      #expect(
        information.output.contains("(\((size + 511) / 512 * 512) bytes)"),
        "\(information.output)")
    }
  }

  @Test(
    "QEMU finds no fault in a preallocated image, which reads zero", .tags(.qemu),
    .enabled(if: QemuImg.isExpected),
    arguments: [
      (2, 9, false), (2, 16, false), (3, 9, false), (3, 12, false), (3, 21, false), (3, 14, true),
      (3, 16, true), (3, 21, true),
    ], [0, 512, 5_000_192] as [UInt64])
  func preallocated(layout: (version: Int, clusterBits: Int, extendedL2: Bool), size: UInt64) throws
  {
    try withTemporaryDirectory { directory in
      let image = try template(
        version: layout.version, clusterBits: layout.clusterBits, virtualSize: size,
        extendedL2: layout.extendedL2, preallocated: true)
      let path = directory + "/new.qcow2"
      try write(image, to: path)
      let checked = try QemuImg.run(["check", path])
      #expect(checked.output.contains("No errors were found"), "\(checked.output)")
      let clusters = (size + (1 << UInt64(layout.clusterBits)) - 1) >> UInt64(layout.clusterBits)
      if clusters > 0 {
        #expect(checked.output.contains("\(clusters)/\(clusters) = 100.00% allocated"))
      }
      try Data(count: Int(size)).write(to: URL(fileURLWithPath: directory + "/zero"))
      let compared = try QemuImg.run(
        ["compare", "-f", "qcow2", "-F", "raw", path, directory + "/zero"])
      #expect(compared.status == 0, "\(compared.output)")
    }
  }

  @Test("zstd and extended L2 entries need version 3, and the latter clusters of 16 KiB")
  func features() throws {
    #expect(try template(compression: .zstd).header.incompatibleFeatures == 8)
    #expect(try template(clusterBits: 14, extendedL2: true).header.incompatibleFeatures == 16)
    #expect(throws: FormatError.self) { try template(version: 2, compression: .zstd) }
    #expect(throws: FormatError.self) { try template(version: 2, extendedL2: true) }
    #expect(throws: FormatError.self) { try template(clusterBits: 13, extendedL2: true) }
  }
}
