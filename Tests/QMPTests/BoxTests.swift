import Testing

@testable import QMP

@Suite struct BoxTests {
  private static let piece = MessageSplitter.Piece.value([0])

  @Test("a full inbox holds reading, and says once when there is room again")
  func inbox() {
    var inbox = Inbox()
    inbox.add(Array(repeating: Self.piece, count: Inbox.mostWaiting - 1))
    let before = inbox.mayRead()
    inbox.add([Self.piece, Self.piece])
    let after = inbox.mayRead()
    let goesOn = (1...3).map { _ in inbox.take()?.goesOn }
    #expect(before && !after)
    #expect(goesOn == [false, true, false])
  }

  @Test("an inbox that has ended gives what is left, one that is closed nothing")
  func end() {
    var inbox = Inbox()
    inbox.add([Self.piece])
    inbox.end()
    #expect(inbox.hasNext && !inbox.isOver)
    let taken = [inbox.take()?.piece, inbox.take()?.piece]
    #expect(taken == [Self.piece, nil] && !inbox.hasNext && inbox.isOver)
    inbox = Inbox()
    inbox.add([Self.piece])
    inbox.close()
    let closed = inbox.take()?.piece
    #expect(!inbox.hasNext && inbox.isOver && closed == nil)
  }

  @Test("an outbox hands over nothing while much is under way, and is over when all was sent")
  func outbox() {
    var outbox = Outbox()
    let first = outbox.schedule()
    let second = outbox.schedule()
    #expect(first && !second)
    outbox.add(.init(text: String(repeating: "x", count: Outbox.mostUnderWay)))
    #expect(outbox.isFull && !outbox.isHeld)
    let begun = outbox.look().count
    outbox.begin(bytes: Outbox.mostUnderWay)
    outbox.add(.init(text: "y"))
    outbox.end()
    let held = outbox.look().count
    #expect(begun == 1 && held == 0 && outbox.isFull && outbox.isHeld && !outbox.isOver)
    outbox.sent(bytes: Outbox.mostUnderWay)
    #expect(!outbox.isFull && !outbox.isOver)
    let rest = outbox.look().map(\.text)
    #expect(rest == ["y"] && outbox.isOver)
    outbox.close()
    outbox.add(.init(text: "z"))
    let closed = outbox.look().count
    let third = outbox.schedule()
    #expect(closed == 0 && !third && !outbox.isFull)
  }
}
