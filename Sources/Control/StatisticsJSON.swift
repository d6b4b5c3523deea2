internal import Chain

// What QMP calls BlockStats. QEMU counts at the device, where the guest's requests come in, and so does
// this; of a node it knows only how far it was written. Requests are neither merged nor found invalid
// here: the kernel does both before they come. A file has no zones to append to.

/// Numbers of devices as QMP tells them.
enum StatisticsJSON {
  /// One device.
  static func device(_ name: String, node: String, _ statistics: GuestStatistics) -> JSONText {
    .object([
      .init("device", .string(name)), .init("node-name", .string(node)),
      .init("stats", stats(statistics, isOfDevice: true)),
    ])
  }

  /// One node, which was written up to a place.
  static func node(_ name: String, highestWritten: UInt64) -> JSONText {
    var statistics = GuestStatistics()
    statistics.highestWritten = highestWritten
    return .object([
      .init("node-name", .string(name)), .init("stats", stats(statistics, isOfDevice: false)),
    ])
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
