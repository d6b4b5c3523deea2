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
  // Relaxed throughout: these are figures for a heuristic, nothing is published through them. Two
  // requests that end together may lose one step of the average.
  private let inFlight = Atomic<Int>(0)
  private let completed = Atomic<UInt64>(0)
  private let latency = Atomic<UInt64>(0)

  func begin() {
    inFlight.wrappingAdd(1, ordering: .relaxed)
  }

  func end(since start: MonotonicTime, now: MonotonicTime) {
    inFlight.wrappingSubtract(1, ordering: .relaxed)
    completed.wrappingAdd(1, ordering: .relaxed)
    let took = now.nanoseconds - min(start.nanoseconds, now.nanoseconds)
    let average = latency.load(ordering: .relaxed)
    latency.store(average == 0 ? took : average - average / 8 + took / 8, ordering: .relaxed)
  }

  var sample: GuestLoadSample {
    GuestLoadSample(
      inFlight: inFlight.load(ordering: .relaxed), completed: completed.load(ordering: .relaxed),
      latencyNanoseconds: latency.load(ordering: .relaxed))
  }
}
