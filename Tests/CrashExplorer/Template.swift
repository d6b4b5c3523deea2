// The images of a shape, made by qemu-img and qemu-io once and kept in memory: a workload starts with a
// copy of them, which shares all pages.
//
//     base0 <- base1 <- ... <- top        base0 may be raw
//
// Contents are told apart by sector: each sector of a pattern file repeats eight bytes of its own, so
// that it can be compressed and is like no other.

import Encryption
import Foundation
import TestSupport

/// The images of a shape.
final class Template: Sendable {
  static let secret = "open sesame"

  let shape: Shape
  /// Durable, closed, nobody has them open.
  let files: SimulatedFiles
  /// The paths of the layers, active image first.
  let layers: [String]
  /// What the disk reads as.
  let bytes: [UInt8]
  /// What the internal snapshots of the top read as, by name.
  let snapshots: [String: [UInt8]]

  init(_ shape: Shape) throws {
    self.shape = shape
    let place = try TemporaryDirectory()
    var script = Script(shape, in: place)
    try script.run()
    files = SimulatedFiles(sharesBlocks: shape.sharesBlocks)
    let count = shape.depth
    layers = ["/top"] + (0..<count - 1).reversed().map { "/base\($0)" }
    for name in try FileManager.default.contentsOfDirectory(atPath: place.path).sorted()
    where name.hasPrefix("top") || name.hasPrefix("base") {
      var bytes = SparseBytes(try Self.content(place.file(name)))
      if name == "top" { bytes = try Damage.apply(shape, to: bytes) }
      files.put("/\(name)", bytes)
    }
    bytes = try Self.content(place.file("expected"))
    var snapshots: [String: [UInt8]] = [:]
    if shape.hasSnapshots {
      for name in Script.snapshots { snapshots[name] = try Self.content(place.file("of-\(name)")) }
    }
    self.snapshots = snapshots
  }

  private static func content(_ path: String) throws -> [UInt8] {
    [UInt8](try Data(contentsOf: URL(fileURLWithPath: path)))
  }
}

/// The commands that make the images of a shape.
private struct Script {
  static let snapshots = ["one", "two"]
  private static let patterns = 6

  let shape: Shape
  let place: TemporaryDirectory
  private var random: SeededGenerator

  init(_ shape: Shape, in place: TemporaryDirectory) {
    self.shape = shape
    self.place = place
    random = SeededGenerator(seed: shape.seed ^ 0xABCD)
  }

  mutating func run() throws {
    for number in 0..<Self.patterns {
      var bytes: [UInt8] = []
      for _ in 0..<96 {
        let word = random.bytes(8)
        for _ in 0..<64 { bytes += word }
      }
      try Data(bytes).write(to: URL(fileURLWithPath: place.file("p\(number)")))
    }
    let script = "set -e\n" + (shape.feature == .rawTop ? rawTop() : chain())
    let result = try Shell.run(script, in: place.path)
    if result.status != 0 {
      throw CommandFailure(
        description: "shape \(shape.name): status \(result.status)\n\(script)\n"
          + result.output + result.errorOutput)
    }
  }

  private mutating func rawTop() -> String {
    """
    truncate -s \(shape.size) top
    \(work("top", shape.size, isRaw: true))
    cp top expected
    """
  }

  private var options: String {
    var words = [
      "compat=\(shape.version == 2 ? "0.10" : "1.1")", "cluster_size=\(1 << shape.clusterBits)",
      "refcount_bits=\(shape.refcountBits)",
    ]
    if shape.isLazy { words.append("lazy_refcounts=on") }
    if shape.hasExtendedL2 { words.append("extended_l2=on") }
    if shape.feature == .zstd { words.append("compression_type=zstd") }
    if shape.hasDataFile { words.append("data_file=top.data") }
    if shape.feature == .rawDataFile { words.append("data_file_raw=on") }
    if shape.feature == .luks {
      words += ["encrypt.format=luks", "encrypt.key-secret=s", "encrypt.iter-time=1"]
    }
    return words.joined(separator: ",")
  }

  private var opened: String {
    shape.feature == .luks
      ? "--object secret,id=s,data='\(Template.secret)' --image-opts "
        + "driver=qcow2,encrypt.key-secret=s,file.filename=top"
      : "-f qcow2 top"
  }

  private mutating func chain() -> String {
    var lines: [String] = []
    for number in 0..<shape.depth - 1 {
      let name = "base\(number)"
      let length = max(512, shape.size + shape.baseSurplus)
      let isRaw = number == 0 && shape.hasRawBase
      if isRaw {
        lines.append("truncate -s \(length) \(name)")
      } else {
        let cluster = ["512", "4k", "64k"][Int.random(in: 0..<3, using: &random)]
        let below = number == 0 ? "" : backing(number - 1)
        lines.append(
          "qemu-img create -q -f qcow2 -o cluster_size=\(cluster) \(below) \(name) \(length)")
      }
      lines.append(work(name, length, isRaw: isRaw))
    }
    let below = shape.depth > 1 ? backing(shape.depth - 2) : ""
    let secret = shape.feature == .luks ? "--object secret,id=s,data='\(Template.secret)'" : ""
    lines.append(
      "again qemu-img create -q -f qcow2 \(secret) -o \(options) \(below) top \(shape.size)")
    if shape.hasCompressed { lines.append(compressedWork()) }
    lines.append(work("top", shape.size, isRaw: false))
    if shape.hasSnapshots {
      for name in Self.snapshots {
        lines.append("qemu-img snapshot -c \(name) top")
        lines.append("qemu-img convert -l \(name) -f qcow2 -O raw top of-\(name)")
        if name == "one" || random.oneIn(2) { lines.append(work("top", shape.size, isRaw: false)) }
      }
    }
    if shape.hasBitmaps {
      lines.append("qemu-img bitmap --add -g \(random.oneIn(2) ? 512 : 4096) top fine")
      lines.append("qemu-img bitmap --add -g 65536 top coarse")
      lines.append("qemu-img bitmap --add --disable top off")
    }
    lines.append("qemu-img convert \(opened) -O raw expected")
    return lines.joined(separator: "\n")
  }

  private func backing(_ number: Int) -> String {
    "-b base\(number) -F \(number == 0 && shape.hasRawBase ? "raw" : "qcow2")"
  }

  private mutating func work(_ name: String, _ size: Int, isRaw: Bool) -> String {
    if size == 0 { return "" }
    var commands: [String] = []
    // So that the first write may be one in place.
    if shape.feature == .unknownAutoclear { commands.append("write -q -s p0 0 \(size)") }
    for _ in 0..<Int.random(in: 3...6, using: &random) {
      let place = Int.random(in: 0..<size / 512, using: &random) * 512
      let most = min(size - place, size / 4) / 512
      let length = Int.random(in: 1...max(most, 1), using: &random) * 512
      let pattern = Int.random(in: 0..<Self.patterns, using: &random)
      commands.append("write -q -s p\(pattern) \(place) \(length)")
      if random.oneIn(3), shape.version == 3 || name != "top" {
        let start = Int.random(in: 0..<size / 512, using: &random) * 512
        let flags = random.oneIn(2) ? "-z" : "-z -u"
        commands.append("write -q \(flags) \(start) \(min(size - start, size / 8 / 512 * 512))")
      }
    }
    let words = commands.map { "-c '\($0)'" }.joined(separator: " ")
    let image = isRaw ? "-f raw \(name)" : name == "top" ? opened : "-f qcow2 \(name)"
    return "qemu-io \(words) \(image)"
  }

  /// QEMU compresses whole clusters that are not there yet.
  private mutating func compressedWork() -> String {
    let cluster = 1 << shape.clusterBits
    let places = Array((0..<shape.size / cluster).shuffled(using: &random).prefix(40))
    let words = places.map { place in
      let pattern = Int.random(in: 0..<Self.patterns, using: &random)
      return "-c 'write -q -c -s p\(pattern) \(place * cluster) \(cluster)'"
    }
    return "qemu-io \(words.joined(separator: " ")) \(opened)"
  }
}
