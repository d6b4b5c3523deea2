import Testing

@testable import Fuse

@Suite("Clients that were interrupted")
struct ClientThreadTests {
  private func status(
    _ state: String = "S (sleeping)", own: String = "0", shared: String = "0", blocked: String = "0"
  ) -> String {
    """
    Name:\tcat
    State:\t\(state)
    SigQ:\t1/96364
    SigPnd:\t\(own)
    ShdPnd:\t\(shared)
    SigBlk:\t\(blocked)
    SigIgn:\t0000000000000006

    """
  }

  @Test("a signal of the thread or of its process interrupts it, a blocked one does not")
  func signals() {
    #expect(!ClientThread.isInterrupted(status: status()))
    #expect(ClientThread.isInterrupted(status: status(own: "0000000000000100")))
    #expect(ClientThread.isInterrupted(status: status(shared: "0000000000000002")))
    #expect(!ClientThread.isInterrupted(status: status(shared: "2", blocked: "2")))
    #expect(ClientThread.isInterrupted(status: status(shared: "6", blocked: "2")))
  }

  @Test("one that listens to no signal any more was interrupted")
  func deaf() {
    #expect(ClientThread.isInterrupted(status: status("D (disk sleep)")))
    #expect(!ClientThread.isInterrupted(status: status("R (running)")))
    #expect(!ClientThread.isInterrupted(status: ""))
  }

  @Test("a thread that is not there was not")
  func absent() {
    #expect(!ClientThread.isInterrupted(0))
    #expect(!ClientThread.isInterrupted(Int32.max))
  }
}
