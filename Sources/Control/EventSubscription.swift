internal import HostSystem

/// A place in the log of events. Forgetting it does not end it.
package final class EventSubscription: Sendable {
  private let log: EventLog
  private let number: UInt64
  private let place: Monitor<UInt64>

  init(to log: EventLog, number: UInt64, place: UInt64) {
    self.log = log
    self.number = number
    self.place = Monitor(place)
  }

  /// The next event as QMP sends it, without a newline, nil if there is none yet. Where the log does not
  /// have the next any more, the oldest that it has.
  package func next() -> String? {
    // Lock: that of the log is taken under that of the place.
    place.withLock { place in
      guard let event = log.event(from: place) else { return nil }
      place = event.next
      return event.line
    }
  }

  /// There is a next event.
  package var hasNext: Bool { log.hasEvent(from: place.withLock { $0 }) }

  /// The next event came so long ago that the log does not have it any more.
  package var hasLost: Bool { log.hasLost(from: place.withLock { $0 }) }

  /// The action is not called any more, unless it is being called just now.
  package func cancel() { log.cancel(number) }
}
