import Foundation
import Glibc
import HostSystem
import Testing

@testable import Fuse

@Suite("Parked reads and polls", .serialized, .enabled(if: canMount), .timeLimit(.minutes(1)))
struct WaitingTests {
  @Test("a parked read is answered later, from another thread, and takes no worker meanwhile")
  func parked() throws {
    let mounted = try Mounted { $0.threads = 1 }
    let got = Monitor<[UInt8]?>(nil)
    let path = mounted.file(.waiting)
    let reader = try Worker(name: "reader") {
      let bytes = try? Descriptor(path, O_RDONLY).readNext(100)
      got.change { $0 = bytes ?? [] }
    }
    mounted.tree.waiting.awaitReader()
    // The only worker serves others while the reader waits.
    #expect(access(mounted.file(.bytes), F_OK) == 0)
    #expect(mounted.tree.waiting.give("now") == 1)
    reader.join()
    #expect(got.withLock { $0 } == Array("now".utf8))
    try mounted.unmount()
  }

  @Test("a reader that waits can be killed", arguments: [SIGINT, SIGKILL])
  func killed(signal: Int32) throws {
    let mounted = try Mounted()
    let reader = try Program(["/usr/bin/cat", mounted.file(.waiting)])
    mounted.tree.waiting.awaitReader()
    reader.send(signal)
    #expect(reader.wait().signal == signal)
    #expect(mounted.tree.waiting.give("late") == 0)
    try mounted.unmount()
  }

  @Test("a nonblocking read is EAGAIN while there is nothing, and poll says when there is")
  func polled() throws {
    let mounted = try Mounted()
    do {
      let file = try Descriptor(mounted.file(.waiting), O_RDONLY | O_NONBLOCK)
      let error = #expect(throws: SystemError.self) { try file.readNext(10) }
      #expect(error?.number == EAGAIN)
      var entry = pollfd(fd: file.raw, events: Int16(POLLIN), revents: 0)
      #expect(poll(&entry, 1, 0) == 0)
      let waiting = mounted.tree.waiting
      let giver = try Worker(name: "giver") {
        waiting.state.wait(while: { $0.handle == nil })
        _ = waiting.give("news")
      }
      #expect(poll(&entry, 1, 20_000) == 1)
      giver.join()
      #expect(entry.revents & Int16(POLLIN) != 0)
      #expect(try file.readNext(10) == Array("news".utf8))
      #expect(lseek(file.raw, 0, SEEK_SET) == -1 && errno == ESPIPE)
    }
    try mounted.unmount()
  }

  @Test("reads that are interrupted while they are parked end with EINTR, all of them, always")
  func interruptStorm() throws {
    let mounted = try Mounted { $0.threads = 2 }
    for _ in 0..<40 {
      // No order between open, park and kill: some are interrupted before they listen.
      let readers = try (
        Program(["/usr/bin/cat", mounted.file(.waiting)]),
        Program(["/usr/bin/cat", mounted.file(.waiting)])
      )
      readers.1.send(SIGTERM)
      readers.0.send(SIGTERM)
      #expect(readers.0.wait().signal == SIGTERM)
      #expect(readers.1.wait().signal == SIGTERM)
    }
    #expect(mounted.tree.waiting.give("late") == 0)
    try mounted.unmount()
  }
}
