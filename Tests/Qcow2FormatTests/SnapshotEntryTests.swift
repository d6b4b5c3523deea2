import Foundation
import Testing

@testable import Qcow2Format

/// The bytes of a directory entry.
func snapshotBytes(
  id: String, name: String, extra: [UInt8], l1Offset: UInt64 = 65536, l1Size: UInt32 = 1
) -> [UInt8] {
  var bytes = [UInt8](repeating: 0, count: 40)
  BigEndian.store(l1Offset, in: &bytes, at: 0)
  BigEndian.store(l1Size, in: &bytes, at: 8)
  BigEndian.store(UInt16(id.utf8.count), in: &bytes, at: 12)
  BigEndian.store(UInt16(name.utf8.count), in: &bytes, at: 14)
  BigEndian.store(UInt32(1_700_000_000), in: &bytes, at: 16)
  BigEndian.store(UInt32(5), in: &bytes, at: 20)
  BigEndian.store(UInt64(77), in: &bytes, at: 24)
  BigEndian.store(UInt32(99), in: &bytes, at: 32)
  BigEndian.store(UInt32(extra.count), in: &bytes, at: 36)
  bytes += extra + Array(id.utf8) + Array(name.utf8)
  return bytes + [UInt8](repeating: 0, count: (8 - bytes.count % 8) % 8)
}

func directory(_ bytes: [UInt8], _ count: Int, version: Int = 3) throws -> [SnapshotEntry] {
  try SnapshotEntry.parseDirectory(bytes.span.bytes, count: count, version: version)
}

@Suite("SnapshotEntry", .tags(.format))
struct SnapshotEntryTests {
  static let fullExtra: [UInt8] =
    [0, 0, 0, 0, 0, 0, 4, 0] + [0, 0, 0, 0, 1, 0, 0, 0] + [UInt8](repeating: 0, count: 8)

  @Test("entries of every length follow each other")
  func entries() throws {
    let bytes =
      snapshotBytes(id: "1", name: "before update", extra: Self.fullExtra)
      + snapshotBytes(id: "22", name: "", extra: [])
      + snapshotBytes(id: "3", name: "c", extra: [UInt8](repeating: 0, count: 1024))
    let entries = try directory(bytes, 3)
    #expect(entries.map(\.id) == ["1", "22", "3"])
    #expect(entries.map(\.name) == ["before update", "", "c"])
    #expect(entries.map(\.vmStateSize) == [1024, 99, 0])
    #expect(entries.map(\.diskSize) == [1 << 24, nil, 0])
    #expect(entries.map(\.isIncomplete) == [false, true, false])
    #expect(entries[0].dateSeconds == 1_700_000_000 && entries[0].dateNanoseconds == 5)
    #expect(entries[0].guestClockNanoseconds == 77)
    #expect(try directory(bytes, 3, version: 2).allSatisfy { !$0.isIncomplete })
  }

  @Test("a directory that is cut or too long is refused")
  func bounds() throws {
    let bytes = snapshotBytes(id: "1", name: "n", extra: Self.fullExtra)
    for count in 0..<66 {
      #expect(throws: FormatError.self) { try directory(Array(bytes.prefix(count)), 1) }
    }
    #expect(throws: FormatError.self) { try directory(bytes, 2) }
    #expect(throws: FormatError.self) { try directory(bytes, 65537) }
    #expect(throws: FormatError.self) {
      try directory(snapshotBytes(id: "1", name: "", extra: .init(repeating: 0, count: 1025)), 1)
    }
    let largest = snapshotBytes(id: "1", name: "", extra: [], l1Size: 4 << 20)
    let geometry = try template().header.geometry
    try directory(largest, 1)[0].checkTable(in: geometry)
    let larger = snapshotBytes(id: "1", name: "", extra: [], l1Size: 4 << 20 + 1)
    let entry = try directory(larger, 1)[0]
    #expect(throws: FormatError.self) { try entry.checkTable(in: geometry) }
  }

  @Test("an L1 table that no file can hold is refused", arguments: [0, 512, 1 << 63] as [UInt64])
  func l1Table(offset: UInt64) throws {
    let geometry = try template().header.geometry
    let bad = try directory(snapshotBytes(id: "1", name: "", extra: [], l1Offset: offset), 1)
    #expect(throws: FormatError.self) { try bad[0].checkTable(in: geometry) }
    let good = try directory(snapshotBytes(id: "1", name: "", extra: []), 1)
    try good[0].checkTable(in: geometry)
  }

  @Test("any bytes are a directory or refused, never more")
  func anyBytes() {
    var generator = SeededGenerator.announced("snapshot directories")
    let valid =
      snapshotBytes(id: "1", name: "one", extra: Self.fullExtra)
      + snapshotBytes(id: "2", name: "two", extra: Self.fullExtra)
    for _ in 0..<3000 {
      var bytes = valid
      for _ in 0..<4 {
        let place = Int.random(in: 0..<bytes.count, using: &generator)
        bytes[place] ^= 1 << UInt8.random(in: 0..<8, using: &generator)
      }
      _ = try? directory(bytes, 2)
      _ = try? directory(generator.bytes(200), 2)
    }
  }

  @Test(
    "snapshots that qemu-img made are found", .tags(.qemu), .enabled(if: QemuImg.isExpected))
  func qemu() throws {
    try withTemporaryDirectory { path in
      let image = path + "/disk.qcow2"
      _ = try QemuImg.run(["create", "-f", "qcow2", image, "16M"])
      for name in ["first", "second one"] {
        #expect(try QemuImg.run(["snapshot", "-c", name, image]).status == 0)
      }
      let file = try readFile(image)
      let header = try parse(file)
      let entries = try directory(
        Array(file[Int(header.snapshotsOffset)...]), header.snapshotCount)
      #expect(entries.map(\.name) == ["first", "second one"])
      #expect(entries.map(\.diskSize) == [16 << 20, 16 << 20])
      for entry in entries { try entry.checkTable(in: header.geometry) }
    }
  }
}
