import Foundation
import HostSystem
import TestSupport
import Testing

@testable import Chain

/// Power goes at every call of a stream that fills snapshots; they read as before, and it goes on.
@Suite(
  "Crashes while snapshots are filled",
  .enabled(if: Workbench.hasTool("qemu-img")))
struct SnapshotCrashTests {
  struct Shape: Sendable, CustomTestStringConvertible {
    var options: String
    var keepsBase = false
    var testDescription: String { options + (keepsBase ? ", to the base" : "") }
  }

  static let names = ["one", "two", "three"]

  /// The files of a chain, and the bytes of the disk and of each snapshot.
  func makeChain(_ shape: Shape) throws -> (files: [String: [UInt8]], expected: [[UInt8]]) {
    let bench = try Workbench()
    try bench.qemuImg("create", "-f", "qcow2", "-o", "cluster_size=4k", "base", "256k")
    try bench.qemuIO("base", ["write -P 1 0 100k", "write -P 2 160k 60k"])
    try bench.qemuImg(
      "create", "-f", "qcow2", "-b", "base", "-F", "qcow2", "-o", "cluster_size=4k", "mid")
    try bench.qemuIO("mid", ["write -P 3 20k 30k", "write -z 90k 20k"])
    try bench.qemuImg(
      "create", "-f", "qcow2", "-o", shape.options, "-b", "mid", "-F", "qcow2", "top")
    try bench.qemuImg("snapshot", "-c", "one", "top")
    try bench.qemuIO("top", ["write -P 4 30k 10k", "write -P 5 170k 9k"])
    try bench.qemuImg("snapshot", "-c", "two", "top")
    try bench.qemuImg("snapshot", "-c", "three", "top")
    try bench.qemuIO("top", ["write -P 6 28k 6k"])
    var files: [String: [UInt8]] = [:]
    for name in ["base", "mid", "top"] { files["/" + name] = try fileBytes(bench.path(name)) }
    let expected =
      [try bench.flatBytes(bench.path("top"))]
      + (try Self.names.map { try bench.flatSnapshot($0, of: "top") })
    return (files, expected)
  }

  func open(_ files: SimulatedFiles) throws -> Disk {
    try Disk.open(DeviceConfiguration(name: "vda", image: .qcow2(path: "/top")), files: files)
  }

  func expectBytes(_ disk: Disk, _ expected: [[UInt8]], _ says: String) throws {
    if let difference = firstDifference(try disk.allBytes(), expected[0]) {
      Issue.record("\(says): \(difference)")
    }
    for (name, bytes) in zip(Self.names, expected.dropFirst()) {
      if let difference = firstDifference(try disk.bytes(ofSnapshot: name), bytes) {
        Issue.record("\(says): snapshot \(name): \(difference)")
      }
    }
  }

  @Test(
    "the snapshots read the same, and the stream goes on",
    arguments: [
      Shape(options: "cluster_size=4k"), Shape(options: "cluster_size=512", keepsBase: true),
      Shape(options: "cluster_size=4k,compat=0.10"),
      Shape(options: "cluster_size=16k,extended_l2=on"),
    ])
  func anywhere(_ shape: Shape) throws {
    let (content, expected) = try makeChain(shape)
    var step = 1
    while true {
      let files = SimulatedFiles()
      for (path, bytes) in content.sorted(by: { $0.key < $1.key }) { files.put(path, bytes) }
      let disk = try open(files)
      let base = shape.keepsBase ? try disk.findLayer(named: "base") : nil
      let victim = try #require(files.disk("/top"))
      victim.inject(.losesPower(call: victim.callCount + step))
      var isDone = false
      do {
        // A flush in between, as a running job makes them.
        _ = try disk.populate(.snapshots, GuestRange(offset: .zero, length: 64 << 10), base: base)
        try disk.flush()
        try disk.streamAll(base: base)
        isDone = true
      } catch is ChainError {
        // The power is gone; what counts is what is left.
      }
      for crash in 0..<3 as Range<UInt64> {
        let says = "call \(step), crash \(crash)"
        let left = files.crash(seed: UInt64(step) &* 10 &+ crash)
        try expectNoCorruption(try #require(left.disk("/top")), says)
        let again = try open(left)
        try expectBytes(again, expected, says)
        if crash == 0 {
          let base = try shape.keepsBase ? again.findLayer(named: "base") : nil
          try again.streamAll(base: base)
          try expectBytes(again, expected, "\(says), gone on")
          #expect(try again.layers().count == (shape.keepsBase ? 2 : 1), "\(says)")
        }
        try again.close()
        if crash == 0 { try expectNoCorruption(try #require(left.disk("/top")), says) }
      }
      victim.inject(nil)
      // Closing fails after a failed flush; the disk is only put away here.
      try? disk.close()
      if isDone { return }
      step += 1
    }
  }

  /// QEMU finds at most leaks (status 3); anything else is damage.
  func expectNoCorruption(_ disk: SimulatedDisk, _ says: String) throws {
    try DiskCrashTests().expectNoCorruption(disk, says)
  }
}
