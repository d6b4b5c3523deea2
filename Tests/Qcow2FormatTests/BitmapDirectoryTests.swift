import Foundation
import Testing

@testable import Qcow2Format

/// The bytes of a directory entry; the defaults fit a disk of 64 MiB with clusters of 64 KiB.
func bitmapBytes(
  tableOffset: UInt64 = 1 << 16, tableSize: UInt32 = 1, flags: UInt32 = 2, type: UInt8 = 1,
  granularityBits: UInt8 = 16, name: String = "b", nameSize: UInt16? = nil, extra: [UInt8] = []
) -> [UInt8] {
  var bytes = [UInt8](repeating: 0, count: 24)
  BigEndian.store(tableOffset, in: &bytes, at: 0)
  BigEndian.store(tableSize, in: &bytes, at: 8)
  BigEndian.store(flags, in: &bytes, at: 12)
  bytes[16] = type
  bytes[17] = granularityBits
  BigEndian.store(nameSize ?? UInt16(name.utf8.count), in: &bytes, at: 18)
  BigEndian.store(UInt32(extra.count), in: &bytes, at: 20)
  bytes += extra + Array(name.utf8)
  return bytes + [UInt8](repeating: 0, count: (8 - bytes.count % 8) % 8)
}

/// The data of the header extension.
func bitmapsExtension(
  count: UInt32 = 1, reserved: UInt32 = 0, size: UInt64 = 32, offset: UInt64 = 1 << 16
) -> [UInt8] {
  var bytes = [UInt8](repeating: 0, count: 24)
  BigEndian.store(count, in: &bytes, at: 0)
  BigEndian.store(reserved, in: &bytes, at: 4)
  BigEndian.store(size, in: &bytes, at: 8)
  BigEndian.store(offset, in: &bytes, at: 16)
  return bytes
}

@Suite("BitmapDirectory", .tags(.format))
struct BitmapDirectoryTests {
  func parse(
    _ bytes: [UInt8], _ count: Int = 1, clusterBits: Int = 16, size: UInt64 = 64 << 20
  ) throws -> [BitmapEntry] {
    let geometry = try Geometry(
      version: 3, clusterBits: clusterBits, refcountOrder: 4, virtualSize: size)
    return try BitmapEntry.parseDirectory(bytes.span.bytes, count: count, in: geometry)
  }

  @Test("entries of every length follow each other, extra data between")
  func entries() throws {
    let first = bitmapBytes(name: "bits")
    let second = bitmapBytes(
      tableOffset: 5 << 16, tableSize: 9, flags: 5, granularityBits: 31,
      name: String(repeating: "n", count: 1023), extra: [1, 2, 3])
    let third = bitmapBytes(flags: 0, granularityBits: 9, name: "x", extra: [7])
    let entries = try parse(first + second + third, 3)
    #expect(entries.map(\.name) == ["bits", String(repeating: "n", count: 1023), "x"])
    #expect(entries.map(\.position) == [0, first.count, first.count + second.count])
    #expect(entries.map(\.tableOffset) == [1 << 16, 5 << 16, 1 << 16])
    #expect(entries.map(\.tableSize) == [1, 9, 1])
    #expect(entries.map(\.granularityBits) == [16, 31, 9])
    #expect(entries.map(\.flags) == [.auto, [.inUse, .extraDataCompatible], []])
    #expect(entries.map(\.isUsable) == [true, true, false])
    #expect(entries[1].sizeAndFlags == 9 << 32 | 5)
  }

  static let badEntries: [(String, [UInt8])] = [
    ("name_size", bitmapBytes(name: "", nameSize: 0)),
    ("name_size", bitmapBytes(name: String(repeating: "n", count: 1024))),
    ("flags", bitmapBytes(flags: 8)), ("flags", bitmapBytes(flags: 1 << 31)),
    ("type", bitmapBytes(type: 0)), ("type", bitmapBytes(type: 2)),
    ("granularity_bits", bitmapBytes(granularityBits: 8)),
    ("granularity_bits", bitmapBytes(flags: 3, granularityBits: 32)),
    ("bitmap_table_size", bitmapBytes(tableSize: 0)),
    ("bitmap_table_size", bitmapBytes(tableSize: 2)),
    ("bitmap_table_size", bitmapBytes(tableSize: 8193, flags: 3)),
    ("bitmap_table_size", bitmapBytes(tableSize: .max, flags: 1)),
    ("bitmap_table_offset", bitmapBytes(tableOffset: 0)),
    ("bitmap_table_offset", bitmapBytes(tableOffset: 512)),
    ("bitmap_table_offset", bitmapBytes(tableOffset: (1 << 63) - 65536)),
    ("bitmap_table_offset", bitmapBytes(tableOffset: 1 << 63)),
  ]

  @Test("an entry that is out of bounds is refused, and its field named", arguments: badEntries)
  func bounds(_ field: String, _ bytes: [UInt8]) throws {
    do {
      _ = try parse(bytes)
      Issue.record("taken")
    } catch let error as FormatError {
      #expect(error.description.hasPrefix("\(field) of bitmap 0 is"), "\(error)")
    }
  }

  @Test("a bitmap in use may have a table of any size up to the limit")
  func inUse() throws {
    #expect(try parse(bitmapBytes(tableSize: 8192, flags: 3)).count == 1)
    #expect(try parse(bitmapBytes(tableSize: 2, flags: 1)).count == 1)
  }

  @Test("a directory that is cut, or longer than its entries, is refused")
  func length() throws {
    let bytes = bitmapBytes(name: "bitmap 1") + bitmapBytes(name: "b2", extra: [1])
    for count in 0..<bytes.count {
      #expect(throws: FormatError.self) { try parse(Array(bytes.prefix(count)), 2) }
    }
    #expect(try parse(bytes, 2).count == 2)
    #expect(throws: FormatError.self) { try parse(bytes, 1) }
    #expect(throws: FormatError.self) { try parse(bytes, 3) }
    #expect(throws: FormatError.self) { try parse(bytes + [0, 0, 0, 0, 0, 0, 0, 0], 2) }
    #expect(throws: FormatError.self) { try parse(bytes, 65536) }
    #expect(throws: FormatError.self) { try parse([], 0) }
    var huge = bitmapBytes()
    BigEndian.store(UInt32.max, in: &huge, at: 20)
    #expect(throws: FormatError.self) { try parse(huge) }
  }

  @Test(
    "the table has as many entries as the disk needs clusters of bits",
    arguments: [
      // Clusters of 512 bytes hold 4096 bits.
      (9, 9, 4096 * 512, 1), (9, 9, 4096 * 512 + 512, 2), (9, 9, 512, 1), (9, 31, 1 << 30, 1),
      (16, 16, 1 << 35, 1), (16, 16, (1 << 35) + 512, 2), (21, 9, 1 << 33, 1),
      (16, 9, (1 << 28) - 512, 1), (16, 9, 0, 0),
    ] as [(Int, Int, UInt64, UInt64)])
  func tableSize(clusterBits: Int, granularityBits: Int, size: UInt64, wanted: UInt64) {
    #expect(
      BitmapEntry.tableSize(
        for: size, granularityBits: granularityBits, clusterSize: 1 << clusterBits) == wanted)
  }

  @Test("the number of bits does not overflow")
  func bitCount() {
    #expect(BitmapEntry.bitCount(for: .max, granularityBits: 9) == 1 << 55)
    #expect(BitmapEntry.bitCount(for: 513, granularityBits: 9) == 2)
    #expect(BitmapEntry.bitCount(for: 512, granularityBits: 9) == 1)
    #expect(BitmapEntry.bitCount(for: 0, granularityBits: 31) == 0)
  }

  @Test(
    "a table entry is zeroes, ones, a cluster, or refused",
    arguments: [
      (0, 0), (1, 0), (1 << 16, 1 << 16), (1 << 16 | 1, nil), (2, nil), (1 << 8, nil), (3, nil),
      (1 << 9, nil), (1 << 56, nil), (1 << 63 | 1 << 16, nil), (0xff << 48, 0xff << 48),
    ] as [(UInt64, UInt64?)])
  func tableEntry(raw: UInt64, offset: UInt64?) throws {
    let geometry = try template().header.geometry
    let entry = BitmapTableEntry(rawValue: raw)
    guard let offset else {
      #expect(throws: FormatError.self) { try entry.cluster(in: geometry) }
      return
    }
    #expect(try entry.cluster(in: geometry) == (offset == 0 ? nil : offset))
  }

  static let badExtensions: [(String, [UInt8])] = [
    ("bitmaps extension length", Array(bitmapsExtension().prefix(16))),
    ("bitmaps extension length", bitmapsExtension() + [0]),
    ("nb_bitmaps", bitmapsExtension(count: 0)), ("nb_bitmaps", bitmapsExtension(count: 65536)),
    ("bitmaps extension reserved", bitmapsExtension(reserved: 1)),
    ("bitmap_directory_size", bitmapsExtension(size: 23)),
    ("bitmap_directory_size", bitmapsExtension(size: 65535 * 1024 + 1)),
    ("bitmap_directory_size", bitmapsExtension(size: .max)),
    ("bitmap_directory_offset", bitmapsExtension(offset: 0)),
    ("bitmap_directory_offset", bitmapsExtension(offset: 512)),
    ("bitmap_directory_offset", bitmapsExtension(offset: 1 << 63)),
  ]

  @Test(
    "an extension that is out of bounds is refused, and its field named", arguments: badExtensions)
  func badExtension(_ field: String, _ data: [UInt8]) throws {
    var header = try template().header
    header.extensions.append(HeaderExtension(type: HeaderExtension.bitmapsType, data: data))
    #expect(try header.bitmapDirectory() == nil)
    header.autoclearFeatures = ImageHeader.bitmapsFeature
    do {
      _ = try header.bitmapDirectory()
      Issue.record("taken")
    } catch { #expect(error.description.hasPrefix(field), "\(error)") }
  }

  @Test("the extension says where the directory is, if the bitmaps are in force")
  func place() throws {
    var header = try template().header
    header.autoclearFeatures = ImageHeader.bitmapsFeature
    #expect(try header.bitmapDirectory() == nil)
    header.extensions.append(
      HeaderExtension(
        type: HeaderExtension.bitmapsType,
        data: bitmapsExtension(count: 65535, size: 65535 * 1024, offset: 7 << 16)))
    let place = try #require(try header.bitmapDirectory())
    #expect(place.count == 65535 && place.byteCount == 65535 * 1024 && place.offset == 7 << 16)
  }

  @Test("any bytes are a directory or refused, never more")
  func anyBytes() {
    var generator = SeededGenerator.announced("bitmap directories")
    let valid = bitmapBytes(name: "one", extra: [1, 2]) + bitmapBytes(flags: 3, name: "two")
    for _ in 0..<3000 {
      var bytes = valid
      for _ in 0..<4 {
        let place = Int.random(in: 0..<bytes.count, using: &generator)
        bytes[place] ^= 1 << UInt8.random(in: 0..<8, using: &generator)
      }
      _ = try? parse(bytes, 2)
      _ = try? parse(generator.bytes(200), 2)
    }
  }

  @Test("bitmaps that qemu-img made are found", .tags(.qemu), .enabled(if: QemuImg.isExpected))
  func qemu() throws {
    try withTemporaryDirectory { path in
      let image = path + "/disk.qcow2"
      _ = try QemuImg.run(["create", "-f", "qcow2", image, "100M"])
      for arguments in [["-g", "512", image, "fine"], ["--disable", image, "off"]] {
        #expect(try QemuImg.run(["bitmap", "--add"] + arguments).status == 0)
      }
      let file = try readFile(image)
      let header = try ImageHeader.parse(file.span.bytes)
      let place = try #require(try header.bitmapDirectory())
      let start = Int(place.offset)
      let entries = try BitmapEntry.parseDirectory(
        Array(file[start..<start + place.byteCount]).span.bytes, count: place.count,
        in: header.geometry)
      #expect(entries.map(\.name) == ["fine", "off"])
      #expect(entries.map(\.flags) == [.auto, []])
      #expect(entries.map(\.granularityBits) == [9, 16])
      #expect(entries.map(\.tableSize) == [1, 1])
    }
  }
}
