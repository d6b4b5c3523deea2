/// What is to be sent to a client.
struct Outbox {
  /// How much may be under way while more is handed over. Whoever has more waits, but for one reply.
  static let mostUnderWay = 256 << 10

  /// A line that is to be sent.
  struct Line {
    var text: String
    /// Events follow it from then on.
    var opensEvents = false
  }

  private var lines: [Line] = []
  private var waitingBytes = 0
  private var sendingBytes = 0
  /// Somebody will look here soon.
  private var isScheduled = false
  /// The connection is to be closed once everything was sent.
  private var isEnding = false
  private(set) var isClosed = false

  /// There is no room for another line.
  var isFull: Bool { !isClosed && waitingBytes + sendingBytes >= Self.mostUnderWay }

  /// Nothing should be handed to the connection now.
  var isHeld: Bool { sendingBytes >= Self.mostUnderWay }

  mutating func add(_ line: Line) {
    if isClosed { return }
    lines.append(line)
    waitingBytes += line.text.utf8.count
  }

  mutating func end() { isEnding = true }

  /// Everything was sent, and nothing will follow.
  var isOver: Bool { isEnding && lines.isEmpty && sendingBytes == 0 }

  /// True if somebody has to be called to look here.
  mutating func schedule() -> Bool {
    if isClosed || isScheduled { return false }
    isScheduled = true
    return true
  }

  /// Begins a look: gives the lines that are to be sent now.
  mutating func look() -> [Line] {
    isScheduled = false
    if isHeld || isClosed { return [] }
    defer {
      lines = []
      waitingBytes = 0
    }
    return lines
  }

  mutating func begin(bytes: Int) { sendingBytes += bytes }

  mutating func sent(bytes: Int) { sendingBytes -= bytes }

  mutating func close() {
    isClosed = true
    lines = []
    waitingBytes = 0
  }
}
