package import HostSystem
package import Jobs

// What happened to a mount and its jobs of late, for any number of readers.
//
//     jobs --note--> [ the newest 1024 events ] <--next-- subscription, a place in the log
//                                              <--next-- subscription
//     jobs --announce--> every subscription's action: "look"
//
// One ring for all. A reader keeps a place in it and nothing more, so one that never reads costs nothing;
// one that falls behind by more than the ring finds the oldest event that is still there, and has lost
// those before it. An event is made into text once, when it is noted.

/// The newest events of a mount and all its jobs.
package final class EventLog: Sendable {
  /// How many events are kept.
  package static let capacity = 1024

  private struct State {
    /// Event number n is at n modulo the capacity.
    var lines: [String] = []
    /// How many events there ever were.
    var count: UInt64 = 0
    /// The bytes of their lines, newlines included.
    var byteCount: UInt64 = 0
    /// How many events readers came too late for, each counted by itself.
    var lost: UInt64 = 0
    var actions: [UInt64: @Sendable () -> Void] = [:]
    var nextAction: UInt64 = 0
  }

  private let time: any TimeSource
  private let state = Monitor(State())

  /// An empty log that dates events by a clock.
  package init(time: any TimeSource) {
    self.time = time
  }

  /// The length of all lines there ever were, in bytes, each with a newline.
  package var byteCount: UInt64 { state.withLock { $0.byteCount } }

  /// How many events there ever were, and how many of them readers came too late for; an event that two
  /// readers missed counts twice.
  var counts: (events: UInt64, lost: UInt64) { state.withLock { ($0.count, $0.lost) } }

  /// Follows the log from now on. `onNews` is called after each event or several of them, from any
  /// thread, with no lock held; it must not wait.
  package func subscribe(_ onNews: @escaping @Sendable () -> Void) -> EventSubscription {
    let (number, place) = state.withLock { state in
      state.nextAction += 1
      state.actions[state.nextAction] = onNews
      return (state.nextAction, state.count)
    }
    return EventSubscription(to: self, number: number, place: place)
  }

  /// The oldest kept event from a place on, and the place after it; nil if there is none yet.
  func event(from place: UInt64) -> (line: String, next: UInt64)? {
    state.withLock { state in
      let oldest = state.count - UInt64(state.lines.count)
      let number = max(place, oldest)
      guard number < state.count else { return nil }
      state.lost += number - place
      return (state.lines[Int(number % UInt64(Self.capacity))], number + 1)
    }
  }

  /// Adds an event of the machine, dated now. It wakes nobody.
  func note(_ event: MachineEvent) { add(EventText.line(event, at: time.wallTime())) }

  private func add(_ line: String) {
    state.withLock { state in
      if state.lines.count < Self.capacity {
        state.lines.append(line)
      } else {
        state.lines[Int(state.count % UInt64(Self.capacity))] = line
      }
      state.count += 1
      state.byteCount += UInt64(line.utf8.count) + 1
    }
  }

  func hasEvent(from place: UInt64) -> Bool { state.withLock { $0.count > place } }

  /// Events from this place on are not kept any more.
  func hasLost(from place: UInt64) -> Bool {
    state.withLock { $0.count - UInt64($0.lines.count) > place }
  }

  func cancel(_ number: UInt64) {
    // The closure leaves the lock before it is released.
    _ = state.withLock { $0.actions.removeValue(forKey: number) }
  }
}

extension EventLog: JobEventSink {
  /// Adds an event, dated now. It wakes nobody.
  package func note(_ event: JobEvent) {
    add(EventText.line(event, at: time.wallTime()))
  }

  /// Calls every subscription's action.
  package func announce() {
    for action in state.withLock({ Array($0.actions.values) }) { action() }
  }
}
