import Glibc
import HostSystem
import Testing

@testable import Fuse

@Suite("SignalWatch", .timeLimit(.minutes(1)))
struct SignalWatchTests {
  @Test("a watched signal becomes a call, and stopping ends the watch")
  func calls() throws {
    let received = Monitor<[Int32]>([])
    let watch = try SignalWatch { number in received.change { $0.append(number) } }
    watch.send(SIGTERM)
    received.wait(while: { $0.isEmpty })
    #expect(received.withLock { $0 } == [SIGTERM])
    watch.stop()
    watch.stop()
  }
}
