import HostSystem

@testable import Jobs

/// The events of jobs as short words, and how they were told.
final class RecordedEvents: JobEventSink {
  private struct State {
    var events: [JobEvent] = []
    var announced = 0
  }

  private let state = Monitor(State())

  func note(_ event: JobEvent) { state.withLock { $0.events.append(event) } }
  func announce() { state.change { $0.announced = $0.events.count } }

  /// All that were announced so far.
  var events: [JobEvent] { state.withLock { Array($0.events.prefix($0.announced)) } }

  /// Their words in order; those of jobs with another id than the first one's carry it.
  var words: [String] {
    let events = events
    let usual = events.first.map(Self.id)
    return events.map { event in
      let word =
        switch event {
        case .stage(let stage, _): stage.rawValue
        case .pending: "PENDING"
        case .error(_, let action): "ERROR-\(action.rawValue)"
        case .completed(let result): result.error == nil ? "COMPLETED" : "COMPLETED-error"
        case .cancelled: "CANCELLED"
        }
      return Self.id(of: event) == usual ? word : "\(Self.id(of: event)):\(word)"
    }
  }

  /// The words as one line.
  var line: String { words.joined(separator: " ") }

  private static func id(of event: JobEvent) -> String {
    switch event {
    case .stage(_, let id), .pending(let id), .error(let id, _): id
    case .completed(let result), .cancelled(let result): result.id
    }
  }
}
