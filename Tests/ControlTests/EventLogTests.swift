import HostSystem
import Jobs
import Testing

@testable import Control
@testable import Jobs

private struct FixedTime: TimeSource {
  func now() -> MonotonicTime { MonotonicTime(nanoseconds: 0) }
  func wallTime() -> WallTime { WallTime(seconds: 1_700_000_000, nanoseconds: 123_456_789) }
}

private func result(error: String? = nil) -> JobEvent.Result {
  var status = JobStatus(
    device: "vda", id: "j", state: .completed, stage: .concluded, isResumed: false, length: 64,
    offset: 32, copied: 0, zero: 0, skipped: 0, durable: 0, speed: 7, onError: .report,
    ioStatus: .ok, isBusy: false, started: WallTime(seconds: 0),
    order: MonotonicTime(nanoseconds: 0))
  status.error = error
  return JobEvent.Result(status)
}

@Suite("EventText")
struct EventTextTests {
  @Test(
    "an event is what QEMU sends, to the byte",
    arguments: [
      (.stage(.created, id: "j"), "JOB_STATUS_CHANGE", #"{"status": "created", "id": "j"}"#),
      (.pending(id: "j"), "BLOCK_JOB_PENDING", #"{"type": "stream", "id": "j"}"#),
      (
        .error(id: "j", .stop), "BLOCK_JOB_ERROR",
        #"{"device": "j", "operation": "read", "action": "stop"}"#
      ),
      (
        .completed(result()), "BLOCK_JOB_COMPLETED",
        #"{"device": "j", "len": 64, "offset": 32, "speed": 7, "type": "stream"}"#
      ),
      (
        .completed(result(error: "vda: \"no\"\n")), "BLOCK_JOB_COMPLETED",
        #"{"device": "j", "len": 64, "offset": 32, "speed": 7, "type": "stream", "#
          + #""error": "vda: \"no\"\n"}"#
      ),
      (
        .cancelled(result()), "BLOCK_JOB_CANCELLED",
        #"{"device": "j", "len": 64, "offset": 32, "speed": 7, "type": "stream"}"#
      ),
    ] as [(JobEvent, String, String)])
  func line(event: JobEvent, name: String, data: String) {
    #expect(
      EventText.line(event, at: FixedTime().wallTime())
        == #"{"timestamp": {"seconds": 1700000000, "microseconds": 123456}, "#
        + #""event": "\#(name)", "data": \#(data)}"#)
  }

  @Test("the stages are QEMU's words")
  func stages() {
    #expect(
      JobStage.allCases.map(\.rawValue) == [
        "created", "running", "paused", "waiting", "pending", "aborting", "concluded", "null",
      ])
  }
}

@Suite("EventLog")
struct EventLogTests {
  private let log = EventLog(time: FixedTime())

  private func note(_ number: Int) { log.note(.pending(id: "job\(number)")) }

  private func number(_ line: String?) -> Int? {
    line.flatMap { $0.split(separator: "\"job").last }.flatMap { Int($0.prefix { $0.isNumber }) }
  }

  @Test("each reader gets what is noted after it came, all of it, in order")
  func readers() {
    note(0)
    let first = log.subscribe {}
    note(1)
    let second = log.subscribe {}
    note(2)
    #expect([first.next(), first.next(), first.next()].map(number) == [1, 2, nil])
    #expect(second.hasNext)
    #expect([second.next(), second.next()].map(number) == [2, nil])
    #expect(!second.hasNext)
  }

  @Test(
    "a reader that fell behind gets the oldest that is still there, and then the rest",
    arguments: [0, 1, 700, 3000])
  func fallsBehind(lost: Int) {
    let reader = log.subscribe {}
    let count = EventLog.capacity + lost
    for index in 0..<count { note(index) }
    var seen: [Int] = []
    while let next = number(reader.next()) { seen.append(next) }
    #expect(seen == Array(lost..<count))
    #expect(log.counts == (events: UInt64(count), lost: UInt64(lost)))
  }

  @Test("an announcement reaches everybody who has not cancelled, and no event does before it")
  func announcements() {
    let calls = Monitor<[String]>([])
    let first = log.subscribe { calls.withLock { $0.append("first") } }
    let second = log.subscribe { calls.withLock { $0.append("second") } }
    note(1)
    #expect(calls.withLock { $0 } == [])
    log.announce()
    #expect(calls.withLock { $0.sorted() } == ["first", "second"])
    first.cancel()
    log.announce()
    #expect(calls.withLock { $0.count } == 3)
    second.cancel()
    log.announce()
    #expect(calls.withLock { $0.count } == 3)
  }

  @Test("the bytes are those of all lines, also of those that are gone")
  func bytes() {
    let reader = log.subscribe {}
    note(1)
    #expect(log.byteCount == UInt64((reader.next() ?? "").utf8.count + 1))
    let one = log.byteCount
    for _ in 1...EventLog.capacity * 2 { note(1) }
    #expect(log.byteCount == one * UInt64(EventLog.capacity * 2 + 1))
  }
}
