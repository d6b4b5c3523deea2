internal import HostSystem
internal import Synchronization

/// How busy the guest keeps a disk, as the copier of a stream looks at it.
package struct GuestLoadSample: Sendable {
  /// Guest requests that are being served now.
  package var inFlight: Int
  /// Guest reads and writes that were served so far.
  package var completed: UInt64
  /// The moving average of what one took, over about the last eight.
  package var latencyNanoseconds: UInt64
}

/// Counts guest requests and times them.
final class GuestLoad: Sendable {
  /// The numbers that are kept of each kind of request.
  private enum Number: Int {
    case operations
    case bytes
    case nanoseconds
    case failures
  }

  private static let numbersPerKind = 4
  /// Behind those of all kinds: the end of the last byte that was written, and of the last request.
  private static let reach = GuestOperation.allCases.count * numbersPerKind
  private static let lastEnd = reach + 1

  // Relaxed throughout: these are figures for a heuristic, nothing is published through them. Two
  // requests that end together may lose one step of the average.
  private let inFlight = Atomic<Int>(0)
  private let latency = Atomic<UInt64>(0)
  private let counters = ShardedCounters(count: lastEnd + 1)

  /// A read or a write begins.
  func begin() {
    inFlight.wrappingAdd(1, ordering: .relaxed)
  }

  /// It has ended.
  func end(since start: MonotonicTime, now: MonotonicTime) {
    inFlight.wrappingSubtract(1, ordering: .relaxed)
    let took = now.nanoseconds(since: start)
    let average = latency.load(ordering: .relaxed)
    latency.store(average == 0 ? took : average - average / 8 + took / 8, ordering: .relaxed)
  }

  /// Counts a request of so many bytes that has ended; as QEMU does, the time of one that failed too.
  func count(
    _ operation: GuestOperation, bytes: Int, hasFailed: Bool, since start: MonotonicTime,
    now: MonotonicTime
  ) {
    if hasFailed {
      counters.add(1, to: Self.place(.failures, operation))
    } else {
      counters.add(1, to: Self.place(.operations, operation))
      if bytes > 0 { counters.add(UInt64(bytes), to: Self.place(.bytes, operation)) }
    }
    counters.add(now.nanoseconds(since: start), to: Self.place(.nanoseconds, operation))
    counters.raise(Self.lastEnd, to: now.nanoseconds)
  }

  /// Bytes up to here were written.
  func wrote(to end: UInt64) { counters.raise(Self.reach, to: end) }

  var sample: GuestLoadSample {
    var completed: UInt64 = 0
    for operation in [GuestOperation.read, .write, .unmap] {
      completed += counters.total(Self.place(.operations, operation))
      completed += counters.total(Self.place(.failures, operation))
    }
    return GuestLoadSample(
      inFlight: inFlight.load(ordering: .relaxed), completed: completed,
      latencyNanoseconds: latency.load(ordering: .relaxed))
  }

  /// What was counted until now.
  func statistics(now: MonotonicTime) -> GuestStatistics {
    var statistics = GuestStatistics()
    for operation in GuestOperation.allCases {
      func total(_ number: Number) -> UInt64 { counters.total(Self.place(number, operation)) }
      statistics.counts[operation] = GuestStatistics.Counts(
        operations: total(.operations), bytes: total(.bytes), nanoseconds: total(.nanoseconds),
        failures: total(.failures))
    }
    statistics.highestWritten = counters.greatest(Self.reach)
    let last = counters.greatest(Self.lastEnd)
    if last > 0 {
      statistics.idleNanoseconds = now.nanoseconds(since: MonotonicTime(nanoseconds: last))
    }
    return statistics
  }

  private static func place(_ number: Number, _ operation: GuestOperation) -> Int {
    operation.rawValue * numbersPerKind + number.rawValue
  }
}
