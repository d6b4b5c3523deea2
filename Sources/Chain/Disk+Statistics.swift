internal import HostSystem

// Requests of the guest are counted where they enter the disk, so what a job or a snapshot asks of it
// is no part of the numbers.

extension Disk {
  /// What the guest has asked so far.
  package var guestStatistics: GuestStatistics { load.statistics(now: timeSource.now()) }

  /// The map of what lies where below the active image.
  package var mapFigures: CacheFigures { map.figures }

  /// The compressed clusters that were inflated last.
  package var inflatedFigures: CacheFigures { inflated.figures }

  /// The chain as it is now.
  package func chainFigures() throws(ChainError) -> ChainFigures {
    try withLayers { layers throws(ChainError) in
      ChainFigures(
        layerCount: layers.backing.layers.count + 1,
        activeBytes: try layers.active.allocatedBytes(),
        backingBytes: layers.backing.allocatedBytes)
    }
  }

  /// Makes durable what was written before the call, for the guest.
  package func flushForGuest() throws(ChainError) {
    let start = timeSource.now()
    var hasFailed = true
    defer {
      load.count(.flush, bytes: 0, hasFailed: hasFailed, since: start, now: timeSource.now())
    }
    try flush()
    hasFailed = false
  }

  /// Serves a request of the guest that moves bytes or gives them up.
  func serve(
    _ operation: GuestOperation, bytes: Int, _ body: () throws(ChainError) -> Void
  ) throws(ChainError) {
    let start = timeSource.now()
    load.begin()
    var hasFailed = true
    defer {
      let now = timeSource.now()
      load.end(since: start, now: now)
      load.count(operation, bytes: bytes, hasFailed: hasFailed, since: start, now: now)
    }
    try body()
    hasFailed = false
  }
}
