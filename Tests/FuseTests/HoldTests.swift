import Foundation
import Glibc
import HostSystem
import Testing

@testable import Fuse

@Suite("Held requests", .serialized, .enabled(if: canMount), .timeLimit(.minutes(2)))
struct HoldTests {
  /// A system call on a file, and what the file notes of it.
  struct Request: CustomTestStringConvertible, Sendable {
    var testDescription: String
    var served: SlowFile.Served
    var call: @Sendable (Int32) throws(SystemError) -> Void

    static let all = [
      Request(testDescription: "read", served: .read(8192)) { (file) throws(SystemError) in
        var bytes = [UInt8](repeating: 0, count: 100)
        if pread(file, &bytes, 100, 8192) != 100 || bytes != Array(repeating: 2, count: 100) {
          throw SystemError(call: "pread", number: errno)
        }
      },
      Request(testDescription: "write", served: .write(512, byte: 9)) {
        (file) throws(SystemError) in
        if pwrite(file, [UInt8](repeating: 9, count: 5000), 5000, 512) != 5000 {
          throw SystemError(call: "pwrite", number: errno)
        }
      },
      Request(testDescription: "fsync", served: .synchronise) { (file) throws(SystemError) in
        if fsync(file) != 0 { throw SystemError(call: "fsync", number: errno) }
      },
      Request(testDescription: "fallocate", served: .allocate(4096)) { (file) throws(SystemError) in
        try SystemCall.allocate(file, .punch, at: 4096, length: 4096)
      },
      Request(testDescription: "lseek", served: .seek(100)) { (file) throws(SystemError) in
        if lseek(file, 100, 3) != 107 { throw SystemError(call: "lseek", number: errno) }
      },
    ]
  }

  /// Waits until so many requests wait.
  private func settled(_ count: Int, _ hold: RequestHold) {
    while hold.waitingCount != count { sched_yield() }
  }

  private func client(
    _ mounted: Mounted, _ body: @escaping @Sendable (Int32) throws(SystemError) -> Void
  ) throws -> (worker: Worker, outcome: Monitor<Result<Void, SystemError>?>) {
    let path = mounted.file(.held)
    let outcome = Monitor<Result<Void, SystemError>?>(nil)
    let worker = try Worker(name: "client") {
      do throws(SystemError) {
        let file = try Descriptor(path, O_RDWR)
        try body(file.raw)
        outcome.withLock { $0 = .success(()) }
      } catch {
        outcome.withLock { $0 = .failure(error) }
      }
    }
    return (worker, outcome)
  }

  @Test("a request waits until it is let go, and has its answer then", arguments: Request.all)
  func kinds(request: Request) throws {
    let mounted = try Mounted { $0.threads = 1 }
    let (hold, slow) = (mounted.tree.hold, mounted.tree.slow)
    #expect(hold.stop() && hold.stop(), "twice is as good as once")
    let client = try client(mounted, request.call)
    settled(1, hold)
    // The only worker serves others meanwhile.
    #expect(access(mounted.file(.bytes), F_OK) == 0)
    #expect(slow.served == [] && client.outcome.withLock { $0 == nil })
    hold.go()
    client.worker.join()
    try client.outcome.withLock { $0 }?.get()
    #expect(slow.served == [request.served])
    hold.go()
    try mounted.unmount()
  }

  @Test("what waits is served in order of arrival, many more than there are workers")
  func order() throws {
    let mounted = try Mounted { $0.threads = 2 }
    let hold = mounted.tree.hold
    #expect(hold.stop())
    let clients = try (0..<50).map { index in
      let place = (index * 37 % 50) << 12
      let client = try client(mounted) { (file) throws(SystemError) in
        var byte: UInt8 = 0
        if pread(file, &byte, 1, place) != 1 || byte != UInt8(place >> 12) {
          throw SystemError(call: "pread", number: errno)
        }
      }
      settled(index + 1, hold)
      return client
    }
    hold.go()
    for client in clients {
      client.worker.join()
      try client.outcome.withLock { $0 }?.get()
    }
    let expected = (0..<50).map { SlowFile.Served.read(UInt64($0 * 37 % 50) << 12) }
    #expect(mounted.tree.slow.served == expected)
    try mounted.unmount()
  }

  @Test("a stop returns when what had begun is finished, and others wait meanwhile")
  func inFlight() throws {
    let mounted = try Mounted()
    let (hold, slow) = (mounted.tree.hold, mounted.tree.slow)
    slow.state.withLock { $0.isStuck = true }
    let first = try client(mounted, Request.all[0].call)
    slow.state.wait(while: { $0.begun == 0 })
    let servedAtStop = Monitor<Int?>(nil)
    let stopper = try Worker(name: "stopper") {
      #expect(hold.stop())
      servedAtStop.withLock { $0 = slow.served.count }
    }
    // Some may begin before the stop does.
    var others: [(worker: Worker, outcome: Monitor<Result<Void, SystemError>?>)] = []
    while hold.waitingCount == 0, others.count < 3 {
      others.append(try client(mounted, Request.all[0].call))
      while hold.waitingCount == 0, slow.state.withLock({ $0.begun }) <= others.count {
        sched_yield()
      }
    }
    let begun = slow.state.withLock { $0.begun }
    #expect(servedAtStop.withLock { $0 } == nil && slow.served == [])
    slow.state.change { $0.isStuck = false }
    stopper.join()
    #expect(servedAtStop.withLock { $0 } == begun)
    hold.go()
    for client in [first] + others {
      client.worker.join()
      try client.outcome.withLock { $0 }?.get()
    }
    try mounted.unmount()
  }

  @Test("nothing is served between a stop and the next go, under load")
  func nothingBetween() throws {
    let mounted = try Mounted { $0.threads = 3 }
    let (hold, slow) = (mounted.tree.hold, mounted.tree.slow)
    let isOver = Monitor(false)
    let clients = try (0..<4).map { index in
      try client(mounted) { (file) throws(SystemError) in
        var bytes = [UInt8](repeating: 0, count: 4096)
        while !isOver.withLock({ $0 }) {
          // One writes, and so has its turn alone; the others read.
          let done = index == 0 ? pwrite(file, bytes, 4096, 0) : pread(file, &bytes, 4096, 4096)
          if done != 4096 { throw SystemError(call: "pread or pwrite", number: errno) }
        }
      }
    }
    for _ in 0..<200 {
      #expect(hold.stop())
      let (begun, served) = slow.state.withLock { ($0.begun, $0.served.count) }
      #expect(begun == served)
      settled(4, hold)
      #expect(slow.state.withLock { $0.begun } == begun)
      hold.go()
    }
    isOver.withLock { $0 = true }
    for client in clients {
      client.worker.join()
      try client.outcome.withLock { $0 }?.get()
    }
    try mounted.unmount()
  }

  @Test(
    "a client that waits can be killed, and its request does nothing",
    arguments: [SIGINT, SIGKILL], ["if=%s of=/dev/null", "if=/dev/zero of=%s conv=notrunc"])
  func killed(signal: Int32, words: String) throws {
    let mounted = try Mounted()
    let (hold, slow) = (mounted.tree.hold, mounted.tree.slow)
    #expect(hold.stop())
    let path = mounted.file(.held)
    let arguments = words.split(separator: " ").map { String($0).replacing("%s", with: path) }
    let client = try Program(["/usr/bin/dd", "bs=4096", "count=1"] + arguments)
    settled(1, hold)
    client.send(signal)
    #expect(client.wait().signal == signal)
    settled(0, hold)
    hold.go()
    #expect(slow.served == [])
    try mounted.unmount()
  }

  @Test("clients that are interrupted while they come to wait are gone, all of them, always")
  func interruptStorm() throws {
    let mounted = try Mounted { $0.threads = 2 }
    let hold = mounted.tree.hold
    #expect(hold.stop())
    for _ in 0..<40 {
      // No order between open, park and kill: some are interrupted before they listen.
      let clients = try (
        Program(["/usr/bin/cat", mounted.file(.held)]),
        Program(["/usr/bin/cat", mounted.file(.held)])
      )
      clients.1.send(SIGTERM)
      clients.0.send(SIGTERM)
      #expect(clients.0.wait().signal == SIGTERM)
      #expect(clients.1.wait().signal == SIGTERM)
    }
    settled(0, hold)
    hold.go()
    #expect(mounted.tree.slow.served == [])
    try mounted.unmount()
  }

  @Test("beyond the limits a request fails with EAGAIN at once, and one that has gone makes room")
  func limits() throws {
    let hold = RequestHold(byteLimit: 4096, countLimit: 2)
    let mounted = try Mounted(tree: MemoryTree(hold: hold))
    #expect(hold.stop())
    do {
      let file = try Descriptor(mounted.file(.held), O_RDWR)
      let large = #expect(throws: SystemError.self) {
        try file.write([UInt8](repeating: 1, count: 4097), at: 0)
      }
      #expect(large?.number == EAGAIN)
      let reader = try Program(["/usr/bin/cat", mounted.file(.held)])
      settled(1, hold)
      let path = mounted.file(.held)
      let writer = try Program([
        "/usr/bin/dd", "if=/dev/zero", "of=\(path)", "bs=4096", "count=1", "conv=notrunc",
      ])
      settled(2, hold)
      let third = #expect(throws: SystemError.self) { try file.read(1) }
      #expect(third?.number == EAGAIN)
      reader.send(SIGKILL)
      _ = reader.wait()
      settled(1, hold)
      let again = try Program(["/usr/bin/dd", "if=\(path)", "of=/dev/null", "bs=1", "count=1"])
      settled(2, hold)
      hold.go()
      #expect(writer.wait().exit == 0 && again.wait().exit == 0)
    }
    try mounted.unmount()
  }

  @Test("an unmount lets what waits through, and then nothing can be stopped")
  func unmounting() throws {
    let mounted = try Mounted { $0.threads = 1 }
    let (hold, slow) = (mounted.tree.hold, mounted.tree.slow)
    #expect(hold.stop())
    let client = try client(mounted, Request.all[1].call)
    settled(1, hold)
    try mounted.unmount()
    client.worker.join()
    try client.outcome.withLock { $0 }?.get()
    #expect(slow.served == [Request.all[1].served])
    #expect(!hold.stop())
  }

  @Test("an unmount writes the pages that the kernel began to write while all was stopped")
  func heldPages() throws {
    let mounted = try Mounted { $0.writeback = .enabled }
    let hold = mounted.tree.hold
    let file = try Descriptor(mounted.file(.heldPages), O_RDWR)
    #expect(hold.stop())
    // Acknowledged by the kernel, which keeps the page: a whole one, so that it need not read it.
    let page = [UInt8](repeating: 7, count: 4096)
    try file.write(page, at: 4096)
    let number = file.raw
    let syncing = try Worker(name: "fsync") { fsync(number) }
    settled(1, hold)
    #expect(mounted.tree.bytes.content.withLock { $0[4096] } == 0)
    try mounted.unmount()
    syncing.join()
    #expect(mounted.tree.bytes.content.withLock { Array($0[4096..<8192]) } == page)
  }

  @Test("where the kernel cuts the connection, what waits is dropped and the session ends")
  func aborted() throws {
    let mounted = try Mounted()
    let (hold, slow) = (mounted.tree.hold, mounted.tree.slow)
    #expect(hold.stop())
    let client = try client(mounted, Request.all[1].call)
    settled(1, hold)
    // The connection is cut whether or not the mount is busy.
    #expect(umount2(mounted.path, Int32(MNT_FORCE)) == 0 || errno == EBUSY)
    client.worker.join()
    #expect(throws: SystemError.self) { try client.outcome.withLock { $0 }?.get() }
    try mounted.finish()
    #expect(slow.served == [] && hold.waitingCount == 0)
    umount2(mounted.path, Int32(MNT_DETACH))
    rmdir(mounted.path)
  }
}
