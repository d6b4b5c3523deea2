import FoundationEssentials

// QMP: each command is a line of JSON and has one answer, a line that begins with "return" or "error".
// Events are lines too, and come at any time, also between a command and its answer.

/// A session with a QMP monitor.
final class QMPClient {
  /// Something that happened in the daemon.
  struct Event: Decodable {
    struct Details: Decodable { var error: String? }
    var event: String
    var data: Details?
  }

  private struct Answer<Value: Decodable>: Decodable { var `return`: Value }

  private let socket: QMPSocket
  private var events: [Event] = []

  /// Connects and leaves the greeting's mode, in which no other command is taken.
  init(path: String) throws {
    socket = try QMPSocket(path: path)
    _ = try socket.readLine()
    _ = try answer(to: #"{"execute":"qmp_capabilities"}"#)
  }

  /// Gives a command, and what it returns.
  func execute<Value: Decodable>(_ command: String, as type: Value.Type) throws -> Value {
    let line = try answer(to: command)
    return try JSONDecoder().decode(Answer<Value>.self, from: Data(line.utf8)).return
  }

  /// Gives a command, and its answer as it came; throws if that is an error.
  func answer(to command: String) throws -> String {
    try socket.send(line: command)
    while true {
      let line = try socket.readLine()
      if line.hasPrefix(#"{"return""#) { return line }
      if line.hasPrefix(#"{"error""#) { throw BenchError("\(command): \(line)") }
      try keep(line)
    }
  }

  /// The next event with one of the names; others are forgotten.
  func event(among names: Set<String>) throws -> Event {
    while true {
      while let event = events.first {
        events.removeFirst()
        if names.contains(event.event) { return event }
      }
      try keep(try socket.readLine())
    }
  }

  private func keep(_ line: String) throws {
    events.append(try JSONDecoder().decode(Event.self, from: Data(line.utf8)))
  }
}
