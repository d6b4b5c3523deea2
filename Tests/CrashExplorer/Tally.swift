import Foundation
internal import HostSystem

/// What a run has seen.
final class Tally: Sendable {
  private struct Counts {
    var operations: [String: Int] = [:]
    var changes: [String: Int] = [:]
    var kinds: [String: Int] = [:]
    var depths: [Int: Int] = [:]
    var sessions: [Int: Int] = [:]
    var failures = 0
  }

  private let counts = Monitor(Counts())
  private static let mostPrinted = 25

  /// How many failures there were.
  var failureCount: Int { counts.withLock { $0.failures } }

  /// Counts a state.
  func add(_ point: CrashPoint, depth: Int) {
    counts.withLock { counts in
      counts.operations[point.expectation.operation, default: 0] += 1
      counts.changes[point.change, default: 0] += 1
      for kind in point.template.shape.kinds { counts.kinds[kind, default: 0] += 1 }
      counts.depths[depth, default: 0] += 1
    }
  }

  /// Counts a session.
  func end(depth: Int) { counts.withLock { $0.sessions[depth, default: 0] += 1 } }

  /// Counts a failure, and prints it if not too many were.
  func fail(_ text: String) {
    let number = counts.withLock { counts in
      counts.failures += 1
      return counts.failures
    }
    if number <= Self.mostPrinted { say(text) }
  }

  /// Prints all counts.
  func report() {
    let counts = counts.withLock { $0 }
    table("States by operation", counts.operations)
    table("States by what was written last", counts.changes)
    table("States by shape", counts.kinds)
    for (depth, count) in counts.depths.sorted(by: { $0.key < $1.key }) {
      let sessions = counts.sessions[depth - 1, default: 0]
      say("States after \(depth) crashes: \(count), of \(sessions) sessions")
    }
  }

  private func table(_ title: String, _ counts: [String: Int]) {
    say("\n\(title)")
    for (name, count) in counts.sorted(by: { $0.key < $1.key }) {
      say("  \(String(count).leftPadded(to: 9))  \(name)")
    }
  }
}

/// Prints a line at once, whatever the output is.
func say(_ line: String) { FileHandle.standardOutput.write(Data((line + "\n").utf8)) }

extension String {
  fileprivate func leftPadded(to width: Int) -> String {
    String(repeating: " ", count: max(0, width - count)) + self
  }
}
