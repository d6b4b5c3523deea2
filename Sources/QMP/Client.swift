internal import Control
internal import HostSystem
internal import NIOCore

// One connection.
//
//     event loop: bytes --splitter--> inbox          outbox, events --> socket
//                                        \           /
//     worker:                           command, reply
//
// A command may take long: a snapshot flushes a disk, a cancel waits for the end of the job. So commands
// are carried out by a thread of the connection, in their order, and the event loop serves the others
// meanwhile.
//
// Memory is bounded on both sides. The inbox is read into only while it is short. Replies wait until the
// socket has taken what came before; commands wait for replies. Events are not copied at all, they are
// in the log of the mount: a client that does not read falls behind in that, and is cut off when the log
// does not have its next event any more.
//
// Order on the wire: what happened before a command ended stands before its reply, as in QEMU.

/// A client of the server.
final class Client: Sendable {
  private let channel: any Channel
  private let service: Service
  private let inbox = Monitor(Inbox())
  private let outbox = Monitor(Outbox())
  private let subscription = Monitor<EventSubscription?>(nil)

  /// What a client needs of the server.
  struct Service: Sendable {
    var control: ControlPlane
    /// Takes a sentence for the log.
    var note: @Sendable (String) -> Void
    /// Takes a client in, unless there are too many.
    var admit: @Sendable (Client) -> Bool
    /// Lets a client go that was taken in, when nothing of it goes on any more.
    var left: @Sendable (Client) -> Void
  }

  init(_ channel: any Channel, _ service: Service) {
    self.channel = channel
    self.service = service
  }

  /// Greets the client and starts its thread; false if it cannot be had.
  func begin() -> Bool {
    guard service.admit(self) else { return false }
    do throws(SystemError) {
      _ = try Worker(name: "qmp") { [self] in
        work()
        service.left(self)
      }
    } catch {
      service.note("a QMP client was sent away: \(error)")
      service.left(self)
      return false
    }
    put(.init(text: SessionState.greeting.line))
    return true
  }

  // MARK: - What comes

  /// Takes messages; called by the event loop.
  func take(_ pieces: [MessageSplitter.Piece]) {
    if !pieces.isEmpty { inbox.change { $0.add(pieces) } }
  }

  /// Whether more may be read now; if not, it is asked for later.
  func mayRead() -> Bool { inbox.withLock { $0.mayRead() } }

  /// The client sends no more, and is still there for replies.
  func endOfInput() { inbox.change { $0.end() } }

  /// The client is gone, or has to go. Its thread ends after the command that it is at.
  func close() {
    inbox.change { $0.close() }
    outbox.change { $0.close() }
    let subscription = subscription.withLock { $0.take() }
    subscription?.cancel()
  }

  private func work() {
    var session = SessionState()
    var runner = CommandRunner(control: service.control)
    while let piece = nextPiece() {
      switch session.take(piece) {
      case .reply(let reply): send(.init(text: reply.line))
      case .open(let reply): send(.init(text: reply.line, opensEvents: true))
      case .carryOut(let command, let arguments, let id):
        let reply: JSONText
        do throws(QMPError) {
          reply = SessionState.success(try runner.run(command, arguments), id: id)
        } catch { reply = SessionState.failure(error, id: id) }
        send(.init(text: reply.line))
        // Order: the reply is on its way before the connection may go.
        if runner.hasQuit { service.control.quit() }
      }
    }
    outbox.withLock { $0.end() }
    look()
    // The thread stays as long as the connection, which counts until then.
    outbox.wait(while: { !$0.isOver && !$0.isClosed })
  }

  private func nextPiece() -> MessageSplitter.Piece? {
    inbox.wait(while: { !$0.hasNext && !$0.isOver })
    guard let (piece, goesOn) = inbox.withLock({ $0.take() }) else { return nil }
    if goesOn { channel.read() }
    return piece
  }

  // MARK: - What goes

  private func send(_ line: Outbox.Line) {
    outbox.wait(while: { $0.isFull })
    put(line)
  }

  private func put(_ line: Outbox.Line) {
    outbox.withLock { $0.add(line) }
    look()
  }

  /// Has the event loop look for what is to be sent.
  private func look() {
    // Lock: held over the call, so that the loop is not called any more once the client is closed. It
    // only queues.
    outbox.withLock { outbox in
      if outbox.schedule() { channel.eventLoop.execute { [self] in flush() } }
    }
  }

  /// Gives the socket what there is to be sent, as far as it takes it at once. Not for the event loop.
  func sendWhatIsThere() {
    // It fails only for a loop that has ended, and then nothing can be sent.
    do { try channel.eventLoop.submit { [self] in flush() }.wait() } catch { return }
  }

  /// Sends what is there. Called by the event loop.
  private func flush() {
    let (lines, isHeld) = outbox.withLock { ($0.look(), $0.isHeld) }
    if hasFallenBehind() {
      service.note("a QMP client that does not read was cut off")
      return channel.close(promise: nil)
    }
    if !isHeld {
      var text = events()
      for line in lines {
        text += line.text + "\r\n"
        if line.opensEvents { openEvents() }
      }
      if !text.isEmpty { write(text) }
    }
    if outbox.withLock({ $0.isOver }) { channel.close(promise: nil) }
  }

  private func write(_ text: String) {
    let bytes = text.utf8.count
    outbox.withLock { $0.begin(bytes: bytes) }
    channel.writeAndFlush(ByteBuffer(string: text)).whenComplete { [self] result in
      outbox.change { $0.sent(bytes: bytes) }
      switch result {
      case .success: look()
      case .failure: channel.close(promise: nil)
      }
    }
  }

  private func openEvents() {
    let new = service.control.events.subscribe { [weak self] in self?.look() }
    subscription.withLock { $0 = new }
    // It may have been closed meanwhile.
    if outbox.withLock({ $0.isClosed }) { close() }
  }

  private func hasFallenBehind() -> Bool {
    subscription.withLock { $0 }?.hasLost == true
  }

  private func events() -> String {
    guard let subscription = subscription.withLock({ $0 }) else { return "" }
    var text = ""
    while text.utf8.count < Outbox.mostUnderWay, let event = subscription.next() {
      text += event + "\r\n"
    }
    return text
  }
}
