/// What a client has sent and nobody has looked at yet.
///
/// A client that sends faster than its commands are carried out is not read any further from some point
/// on, so that its messages wait on its own side.
struct Inbox {
  /// How many messages may wait while more is read. Those of one read come on top.
  static let mostWaiting = 8

  private var pieces: [MessageSplitter.Piece] = []
  private var first = 0
  /// Reading is to go on when there is room again.
  private var isHeld = false
  /// The client sends no more.
  private(set) var hasEnded = false
  /// Nothing is to be looked at any more.
  private(set) var isClosed = false

  private var count: Int { pieces.count - first }

  mutating func add(_ new: [MessageSplitter.Piece]) {
    if !isClosed { pieces += new }
  }

  /// Whether more may be read; if not, `take` tells when.
  mutating func mayRead() -> Bool {
    isHeld = count >= Self.mostWaiting
    return !isHeld
  }

  /// The next message, and whether reading is to go on; nil if there is none yet.
  mutating func take() -> (piece: MessageSplitter.Piece, goesOn: Bool)? {
    if isClosed || count == 0 { return nil }
    let piece = pieces[first]
    first += 1
    if first == pieces.count {
      pieces = []
      first = 0
    }
    let goesOn = isHeld && count < Self.mostWaiting
    if goesOn { isHeld = false }
    return (piece, goesOn)
  }

  /// There is a message to take.
  var hasNext: Bool { !isClosed && count > 0 }

  /// There will be nothing more to take.
  var isOver: Bool { isClosed || (hasEnded && count == 0) }

  mutating func end() { hasEnded = true }

  mutating func close() {
    isClosed = true
    pieces = []
    first = 0
  }
}
