import Foundation
import HostSystem
import TestSupport
import Testing

@testable import Chain

@Suite("Compressed clusters that are written over", .enabled(if: Workbench.hasTool("qemu-img")))
struct CompressedOverwriteTests {
  static let forms = [
    "compression_type=zlib,cluster_size=4096", "compression_type=zlib,cluster_size=65536",
    "compression_type=zstd,cluster_size=65536",
    "compression_type=zlib,cluster_size=16384,extended_l2=on",
    "compression_type=zstd,cluster_size=65536,extended_l2=on",
  ]

  private func open(_ path: String) throws -> Disk {
    try Disk.open(DeviceConfiguration(name: "vda", image: .qcow2(path: path)))
  }

  /// Streams of about a third of a cluster, so that some share a host cluster and some cross two.
  private func make(
    _ bench: Workbench, _ form: String, clusters: Int, _ random: inout SeededGenerator
  ) throws -> (bytes: [UInt8], clusterSize: Int) {
    let size = form.contains("65536") ? 65536 : form.contains("16384") ? 16384 : 4096
    var bytes: [UInt8] = []
    for _ in 0..<clusters {
      let count = Int.random(in: size / 5...size / 2, using: &random)
      bytes += random.bytes(count) + [UInt8](repeating: 7, count: size - count)
    }
    try Data(bytes).write(to: URL(fileURLWithPath: bench.path("disk.raw")))
    try bench.qemuImg(
      "convert", "-f", "raw", "-O", "qcow2", "-c", "-o", form, "disk.raw", "top")
    return (bytes, size)
  }

  /// How many clusters are compressed, as QEMU counts them.
  private func compressed(_ bench: Workbench) throws -> Int {
    let text = try bench.qemuImg("check", "-f", "qcow2", "--output=json", bench.path("top"))
    let json = try JSONSerialization.jsonObject(with: Data(text.utf8)) as? [String: Any]
    return json?["compressed-clusters"] as? Int ?? 0
  }

  @Test("each change frees just what it took the place of", arguments: forms)
  func freesExactly(form: String) throws {
    var random = SeededGenerator(seed: 41)
    let bench = try Workbench()
    var (model, size) = try make(bench, form, clusters: 16, &random)
    #expect(try compressed(bench) == 16)
    let order = Array(0..<16).shuffled(using: &random)
    for (step, cluster) in order.enumerated() {
      let start = cluster * size
      let disk = try open(bench.path("top"))
      switch step % 5 {
      case 0:
        let bytes = random.bytes(size)
        try disk.put(bytes, at: UInt64(start))
        model.replaceSubrange(start..<start + size, with: bytes)
      case 1:
        let bytes = random.bytes(100)
        try disk.put(bytes, at: UInt64(start + 777))
        let place = start + 777
        model.replaceSubrange(place..<place + 100, with: bytes)
      case 2, 3:
        let range = GuestRange(offset: GuestOffset(UInt64(start)), length: UInt64(size))
        if step % 5 == 2 { try disk.writeZeroes(range) } else { try disk.discard(range) }
        model.replaceSubrange(start..<start + size, with: [UInt8](repeating: 0, count: size))
      default:
        let place = start + 600
        let half = size / 2
        let zeroes = [UInt8](repeating: 0, count: half)
        try disk.writeZeroes(
          GuestRange(offset: GuestOffset(UInt64(place)), length: UInt64(half)))
        model.replaceSubrange(place..<place + half, with: zeroes)
      }
      #expect(firstDifference(try disk.allBytes(), model) == nil, "step \(step)")
      try disk.close()
      try bench.expectClean(bench.path("top"))
      #expect(try compressed(bench) == 15 - step)
      #expect(firstDifference(try bench.flatBytes(bench.path("top")), model) == nil)
    }
  }

  @Test("a stream may run past the end of the file inside of its last sector", arguments: forms)
  func cutFile(form: String) throws {
    var random = SeededGenerator(seed: 42)
    let bench = try Workbench()
    let (model, size) = try make(bench, form, clusters: 5, &random)
    // What is behind the last stream is zero: its entry counts whole sectors.
    var file = try fileBytes(bench.path("top"))
    while file.last == 0 { file.removeLast() }
    try #require(!file.count.isMultiple(of: 512))
    try Data(file).write(to: URL(fileURLWithPath: bench.path("top")))
    #expect(firstDifference(try bench.flatBytes(bench.path("top")), model) == nil)
    var disk = try open(bench.path("top"))
    #expect(firstDifference(try disk.allBytes(), model) == nil)
    try disk.put(Array(model[..<size]), at: 0)
    #expect(firstDifference(try disk.allBytes(), model) == nil)
    try disk.close()
    try bench.expectClean(bench.path("top"))
    disk = try open(bench.path("top"))
    try disk.put(model, at: 0)
    try disk.close()
    try bench.expectClean(bench.path("top"))
    #expect(try compressed(bench) == 0)
    #expect(firstDifference(try bench.flatBytes(bench.path("top")), model) == nil)
  }

  @Test(
    "a cluster of several zstd frames is read, and written over",
    .enabled(if: Workbench.hasTool("zstd")), arguments: forms.filter { $0.contains("zstd") })
  func frames(form: String) throws {
    var random = SeededGenerator(seed: 43)
    let bench = try Workbench()
    var (model, size) = try make(bench, form, clusters: 3, &random)
    var file = try fileBytes(bench.path("top"))
    let mask: UInt64 = 0x00ff_ffff_ffff_fe00
    let table = Int(number(file, at: Int(number(file, at: 40))) & mask)
    let entry = number(file, at: table + (form.contains("extended_l2") ? 16 : 8))
    try #require(entry >> 62 & 1 == 1)
    let low: UInt64 = (1 << 54) - 1
    let place = Int(entry & low)
    let parts = [
      [UInt8](repeating: 0x11, count: 30_000), Array(1...200),
      [UInt8](repeating: 0x22, count: size - 30_200),
    ]
    var stream: [UInt8] = []
    for part in parts {
      try Data(part).write(to: URL(fileURLWithPath: bench.path("part")))
      try bench.run("zstd", ["-q", "-f", "part", "-o", "part.zst"])
      stream += try fileBytes(bench.path("part.zst"))
    }
    file.replaceSubrange(place..<place + stream.count, with: stream)
    try Data(file).write(to: URL(fileURLWithPath: bench.path("top")))
    model.replaceSubrange(size..<2 * size, with: parts.flatMap { $0 })
    #expect(firstDifference(try bench.flatBytes(bench.path("top")), model) == nil)
    let disk = try open(bench.path("top"))
    #expect(firstDifference(try disk.allBytes(), model) == nil)
    try disk.put([3, 4, 5], at: UInt64(size + 29_999))
    model.replaceSubrange(size + 29_999..<size + 30_002, with: [3, 4, 5])
    #expect(firstDifference(try disk.allBytes(), model) == nil)
    try disk.close()
    try bench.expectClean(bench.path("top"))
    #expect(try compressed(bench) == 2)
    #expect(firstDifference(try bench.flatBytes(bench.path("top")), model) == nil)
  }
}
