/// A read that is answered later: with bytes, or with EINTR when the reader is interrupted.
package final class ParkedRead: Sendable {
  private let reply: ParkedReply

  init(_ reply: ParkedReply) {
    self.reply = reply
  }

  /// The reader still waits. It may stop doing so at any moment.
  package var isWaiting: Bool { reply.isWaiting }

  /// Ends with bytes; none mean the end of the file. False: the reader had gone, and has not seen
  /// them.
  package func send(_ bytes: RawSpan) -> Bool { reply.send(bytes) }

  /// Ends with an errno. False: the reader had gone.
  @discardableResult
  package func fail(_ number: Int32) -> Bool { reply.fail(number) }
}
