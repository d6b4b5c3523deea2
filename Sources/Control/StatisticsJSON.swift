internal import Chain

// What QMP calls BlockStats. QEMU counts at the device, where the guest's requests come in, and so does
// this; of a node and of a file it knows only how far it was written. Requests are neither merged nor found invalid
// here: the kernel does both before they come. A file has no zones to append to.
//
//     device: what the guest asked
//       parent    the file of the active image
//       backing   the layer below it
//         parent    its file
//         backing   ...
//
// QEMU gives files nodes of their own; here they have none, and so no name.

/// Numbers of devices as QMP tells them.
enum StatisticsJSON {
  /// A layer with the name of its node.
  typealias Named = (node: String, layer: LayerDescription)

  /// One device with its layers, active image first; as deep as ``NodeJSON/deepest``.
  static func device(
    _ name: String, _ statistics: GuestStatistics, _ layers: [Named]
  ) -> JSONText {
    var below: [JSONText.Member] = []
    for named in layers.prefix(NodeJSON.deepest).dropFirst().reversed() {
      below = [.init("backing", .object(members(of: named, highestWritten: 0) + below))]
    }
    var members: [JSONText.Member] = [.init("device", .string(name))]
    if let active = layers.first {
      members += self.members(of: active, stats(statistics, isOfDevice: true))
    }
    return .object(members + below)
  }

  /// One node, which the guest wrote up to a place.
  static func node(_ named: Named, highestWritten: UInt64) -> JSONText {
    .object(members(of: named, highestWritten: highestWritten))
  }

  private static func members(of named: Named, highestWritten: UInt64) -> [JSONText.Member] {
    members(of: named, stats(highestWritten: highestWritten))
  }

  private static func members(of named: Named, _ stats: JSONText) -> [JSONText.Member] {
    let file = self.stats(highestWritten: named.layer.highestWritten)
    return [
      .init("node-name", .string(named.node)), .init("stats", stats),
      .init("parent", .object([.init("stats", file)])),
    ]
  }

  private static func stats(highestWritten: UInt64) -> JSONText {
    var statistics = GuestStatistics()
    statistics.highestWritten = highestWritten
    return stats(statistics, isOfDevice: false)
  }

  private static func stats(_ statistics: GuestStatistics, isOfDevice: Bool) -> JSONText {
    let kinds: [(name: String, counts: GuestStatistics.Counts)] = [
      ("rd", statistics[.read]), ("wr", statistics[.write]),
      ("zone_append", GuestStatistics.Counts()), ("unmap", statistics[.unmap]),
    ]
    let flush = statistics[.flush]
    var members: [JSONText.Member] = []
    func add(_ name: String, _ value: UInt64) { members.append(.init(name, .number(value))) }
    for kind in kinds { add("\(kind.name)_bytes", kind.counts.bytes) }
    for kind in kinds { add("\(kind.name)_operations", kind.counts.operations) }
    add("flush_operations", flush.operations)
    for kind in kinds { add("\(kind.name)_total_time_ns", kind.counts.nanoseconds) }
    add("flush_total_time_ns", flush.nanoseconds)
    add("wr_highest_offset", statistics.highestWritten)
    for kind in kinds { add("\(kind.name)_merged", 0) }
    if let idle = statistics.idleNanoseconds { add("idle_time_ns", idle) }
    for kind in kinds { add("failed_\(kind.name)_operations", kind.counts.failures) }
    add("failed_flush_operations", flush.failures)
    for kind in kinds { add("invalid_\(kind.name)_operations", 0) }
    add("invalid_flush_operations", 0)
    // The time of what failed is counted, and where requests are counted all are.
    members.append(.init("account_invalid", .bool(isOfDevice)))
    members.append(.init("account_failed", .bool(isOfDevice)))
    members.append(.init("timed_stats", .array([])))
    return .object(members)
  }
}
