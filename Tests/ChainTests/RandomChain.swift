import Foundation

@testable import Chain

/// A chain that QEMU made after a seed: cluster sizes, sizes, raw and compressed layers all mixed.
struct RandomChain {
  var bench: Workbench
  /// Bottom first; the last is the active image.
  var names: [String] = []
  var random: SplitMix
  static let unit = 4096

  init(seed: UInt64, depth: Int, sizeUnits: Int = 96, topCluster: Int? = nil) throws {
    bench = try Workbench()
    random = SplitMix(state: seed)
    var below: (name: String, format: String)?
    for index in 0..<depth {
      let isTop = index == depth - 1
      // The active image has the full size; layers below may be shorter or longer.
      let units = isTop ? sizeUnits : sizeUnits / 2 + Int(random.next() % UInt64(sizeUnits))
      let size = units * Self.unit
      if index == 0, !isTop, random.next() % 3 == 0 {
        let name = "base.raw"
        try bench.qemuImg("create", "-f", "raw", name, "\(size)")
        try bench.qemuIO(name, format: "raw", writes(units: units, isCompressed: false))
        below = (name, "raw")
        names.append(name)
        continue
      }
      let name = "layer\(index).qcow2"
      let cluster =
        isTop ? topCluster ?? pick([512, 4096, 65536]) : pick([512, 4096, 16384, 65536])
      var options = "cluster_size=\(cluster)"
      // Version 2 has no zero clusters.
      switch random.next() % 8 {
      case 0, 1: options += ",compat=0.10"
      case 2, 3, 4: if cluster >= 16384 { options += ",extended_l2=on" }
      default: break
      }
      var arguments = ["create", "-f", "qcow2", "-o", options]
      if let below { arguments += ["-b", below.name, "-F", below.format] }
      try bench.run("qemu-img", arguments + [name, "\(size)"])
      try bench.qemuIO(name, writes(units: units, isCompressed: random.next() % 3 == 0))
      below = (name, "qcow2")
      names.append(name)
    }
  }

  var top: String { bench.path(names[names.count - 1]) }

  mutating func pick(_ values: [Int]) -> Int {
    values[Int(random.next() % UInt64(values.count))]
  }

  private mutating func writes(units: Int, isCompressed: Bool) -> [String] {
    var commands: [String] = []
    if isCompressed {
      // QEMU compresses whole clusters, and only where nothing is yet.
      for cluster in 0..<units / 16 where random.next() % 3 == 0 {
        commands.append("write -c -P \(1 + random.next() % 255) \(cluster << 16) 64k")
      }
    }
    for _ in 0..<(2 + random.next() % 8) {
      let start = Int(random.next() % UInt64(units))
      let length = min(units - start, 1 + Int(random.next() % 12))
      let place = "\(start * Self.unit) \(length * Self.unit)"
      switch random.next() % 5 {
      case 0: commands.append("write -z \(place)")
      case 1: commands.append("discard \(place)")
      default: commands.append("write -P \(1 + random.next() % 255) \(place)")
      }
    }
    return commands
  }
}
