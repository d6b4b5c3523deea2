import Chain
import Foundation
import HostSystem
import Testing

@testable import Jobs

private let mebibyte: UInt64 = 1 << 20

@Suite(
  "How jobs end", .enabled(if: ChainBench.isPossible), .serialized, .timeLimit(.minutes(3)))
struct JobEndingTests {
  @Test("a stream tells its events in QEMU's order, with its numbers")
  func success() throws {
    let bench = try ChainBench()
    try bench.open { _, jobs, _ in
      try jobs.start(StreamRequest(base: "base.qcow2"))
      let end = try #require(jobs.waitForEnd())
      #expect(end.stage == .concluded)
      #expect(jobs.listed == [])
      #expect(bench.events.line == "created running waiting pending COMPLETED concluded null")
      #expect(bench.events.events[4] == .completed(JobEvent.Result(end)))
      #expect(end.id == "vda")
    }
  }

  @Test("a job with nothing to do tells the same")
  func nothingToDo() throws {
    let bench = try ChainBench()
    try bench.open { _, jobs, _ in
      try jobs.start(StreamRequest(base: "mid.qcow2"))
      #expect(jobs.last?.state == .completed)
      #expect(bench.events.line == "created running waiting pending COMPLETED concluded null")
    }
  }

  @Test("a job with nothing to do is pending too if it is to be finalized, and writes nothing")
  func nothingToFinalize() throws {
    let bench = try ChainBench()
    let request = StreamRequest(base: "mid.qcow2", autoFinalize: false)
    try bench.open { disk, jobs, _ in
      try jobs.start(request)
      let pending = try #require(jobs.first { $0.state == .pending })
      #expect(pending.length == 0 && pending.offset == 0 && pending.skipped == 0)
      try jobs.finalize()
      #expect(jobs.current == nil && jobs.last?.state == .completed && jobs.last?.length == 0)
      #expect(
        bench.events.line == "created running waiting pending PENDING COMPLETED concluded null")
      #expect(try disk.layers().count == 3 && !bench.hasRecord)
      try jobs.start(request)
      _ = try #require(jobs.first { $0.state == .pending })
    }
    // What an earlier mount left may have been finalized already.
    try bench.open { _, jobs, _ in
      try jobs.resumeRecorded()
      #expect(jobs.current == nil && jobs.last?.state == .completed && !bench.hasRecord)
    }
    #expect(try bench.backing() == "mid.qcow2\n")
    try bench.check()
  }

  @Test("a job that is refused for its speed is told as one that came and went")
  func startsNone() throws {
    let bench = try ChainBench()
    try bench.open { _, jobs, _ in
      for _ in 1...2 { try jobs.startNone(id: nil) }
      #expect(bench.events.line == "created null created null")
      #expect(jobs.current == nil && jobs.last == nil && !bench.hasRecord)
      let bad = #expect(throws: JobError.self) { try jobs.startNone(id: "1bad") }
      #expect(bad?.kind == .invalid)
      try jobs.start(StreamRequest(speed: 1))
      let busy = #expect(throws: JobError.self) { try jobs.startNone(id: "other") }
      #expect(busy?.kind == .busy)
      #expect(bench.events.line == "created null created null created running")
    }
    try bench.open(isReadOnly: true) { _, jobs, _ in
      let refusal = #expect(throws: JobError.self) { try jobs.startNone(id: nil) }
      #expect(refusal?.kind == .readOnly)
    }
  }

  @Test("a cancel is told, of a running job and of a held one")
  func cancelled() throws {
    for (isPaused, told) in [(false, ""), (true, "paused running ")] {
      let bench = try ChainBench()
      try bench.open { _, jobs, _ in
        try jobs.start(StreamRequest(speed: 1))
        if isPaused { try jobs.pause() }
        try jobs.cancel()
        #expect(
          bench.events.line == "created running \(told)aborting CANCELLED concluded null")
      }
    }
  }

  @Test("pauses are told, and nothing where nothing changes")
  func pauses() throws {
    let bench = try ChainBench()
    try bench.open { _, jobs, _ in
      try jobs.start(StreamRequest(speed: 1))
      for _ in 1...2 { try jobs.pause() }
      for _ in 1...2 { try jobs.resume() }
      try jobs.setSpeed(2)
      #expect(bench.events.line == "created running paused running")
    }
    #expect(bench.events.line == "created running paused running", "an unmount is no event")
    try bench.open { _, jobs, _ in
      try jobs.resumeRecorded()
      #expect(bench.events.words.suffix(2) == ["created", "running"])
      try jobs.pause()
    }
    try bench.open { _, jobs, _ in
      try jobs.resumeRecorded()
      #expect(bench.events.words.suffix(3) == ["created", "running", "paused"])
    }
  }

  @Test("a pending job has changed nothing but data, and completes when it is finalized")
  func finalize() throws {
    let bench = try ChainBench()
    try bench.open { disk, jobs, _ in
      try jobs.start(StreamRequest(autoFinalize: false))
      let pending = try #require(jobs.first { $0.state == .pending })
      #expect(pending.offset == pending.length && pending.copied == 22 * mebibyte)
      #expect(pending.stage == .pending && !pending.autoFinalize && !pending.hasEnded)
      #expect(bench.events.line == "created running waiting pending PENDING")
      #expect(try disk.layers().count == 3 && bench.hasRecord)
      #expect(try bench.backing() == "mid.qcow2\n")
      // The guest goes on, in a cluster that was copied and in one that was not.
      for offset in [1 * mebibyte, 60 * mebibyte] {
        let bytes = [UInt8](repeating: 9, count: 4096)
        try disk.write(bytes.span.bytes, at: GuestOffset(offset))
      }
      _ = try #require(jobs.first { $0.durable == $0.length }, "what was copied becomes durable")
      let held = #expect(throws: JobError.self) { try jobs.pause() }
      #expect(held?.kind == .busy && held?.description.contains("pending") == true)
      let other = #expect(throws: JobError.self) { try jobs.start(StreamRequest()) }
      #expect(other?.kind == .busy)
      try jobs.resume()
      try jobs.finalize()
      #expect(jobs.current == nil && jobs.last?.state == .completed)
      #expect(try disk.layers().count == 1)
      #expect(!bench.hasRecord)
      #expect(
        bench.events.line == "created running waiting pending PENDING COMPLETED concluded null")
    }
    #expect(try bench.backing() == "")
    try bench.run(
      """
      for place in 1 60; do
        head -c 4096 /dev/zero | tr '\\0' '\\011' |
          dd of=expected.raw bs=1M seek=$place conv=notrunc status=none
      done
      """)
    try bench.check()
  }

  @Test("a pending job can be cancelled, and leaves the old chain")
  func cancelPending() throws {
    let bench = try ChainBench()
    try bench.open { disk, jobs, _ in
      try jobs.start(StreamRequest(autoFinalize: false))
      _ = try #require(jobs.first { $0.state == .pending })
      try jobs.cancel()
      #expect(jobs.last?.state == .cancelled)
      #expect(try disk.layers().count == 3)
      #expect(
        bench.events.line
          == "created running waiting pending PENDING aborting CANCELLED concluded null")
    }
    #expect(try bench.backing() == "mid.qcow2\n")
    try bench.check()
  }

  @Test("finalize takes nothing but a pending job")
  func notPending() throws {
    let bench = try ChainBench()
    try bench.open { _, jobs, _ in
      let none = #expect(throws: JobError.self) { try jobs.finalize() }
      #expect(none?.kind == .notFound)
      try jobs.start(StreamRequest(speed: 1))
      for stage in ["running", "paused"] {
        if stage == "paused" { try jobs.pause() }
        let error = #expect(throws: JobError.self) { try jobs.finalize() }
        #expect(error?.kind == .busy && error?.description.contains(stage) == true)
      }
    }
  }

  @Test("a pending job that meets an unmount goes on at the next mount, and is pending again")
  func resumed() throws {
    let bench = try ChainBench()
    let request = StreamRequest(
      base: "base.qcow2", id: "job0", autoFinalize: false, autoDismiss: false)
    try bench.open { _, jobs, _ in
      try jobs.start(request)
      _ = try #require(jobs.first { $0.state == .pending })
    }
    for _ in 1...2 {
      try bench.open { disk, jobs, _ in
        try jobs.resumeRecorded()
        let pending = try #require(jobs.first { $0.state == .pending })
        #expect(pending.isResumed && pending.id == "job0" && !pending.autoDismiss)
        #expect(pending.copied == 0)
        #expect(try disk.layers().count == 3)
        #expect(bench.events.line.hasSuffix("created running waiting pending PENDING"))
      }
      #expect(try bench.backing() == "mid.qcow2\n")
    }
    try bench.open { disk, jobs, _ in
      try jobs.resumeRecorded()
      _ = try #require(jobs.first { $0.state == .pending })
      try jobs.finalize()
      #expect(jobs.listed.map(\.id) == ["job0"])
      #expect(try disk.layers().count == 2)
    }
    #expect(try bench.backing() == "base.qcow2\n")
    #expect(!bench.hasRecord)
    try bench.check()
  }

  @Test("a concluded job stays until it is dismissed, and keeps its id and nothing else")
  func dismiss() throws {
    let bench = try ChainBench()
    try bench.open { disk, jobs, _ in
      let none = #expect(throws: JobError.self) { try jobs.dismiss() }
      #expect(none?.kind == .notFound)
      try jobs.start(StreamRequest(speed: 1, autoDismiss: false))
      let running = #expect(throws: JobError.self) { try jobs.dismiss() }
      #expect(running?.kind == .busy && running?.description.contains("running") == true)
      try jobs.cancel()
      #expect(jobs.current == nil && jobs.listed.map(\.stage) == [.concluded])
      #expect(bench.events.words.suffix(2) == ["CANCELLED", "concluded"])
      let taken = #expect(throws: JobError.self) { try jobs.start(StreamRequest()) }
      #expect(taken?.kind == .busy && taken?.description.contains("dismiss") == true)
      // A snapshot and a job of another name find the disk idle.
      try StreamJobs.snapshot([(jobs: jobs, path: bench.path("new.qcow2"))])
      try jobs.start(StreamRequest(id: "other", autoDismiss: false))
      #expect(jobs.waitForEnd()?.state == .completed)
      #expect(jobs.listed.map(\.id) == ["vda", "other"])
      let unknown = #expect(throws: JobError.self) { try jobs.dismiss(id: "nobody") }
      #expect(unknown?.kind == .notFound)
      try jobs.dismiss(id: "vda")
      #expect(bench.events.words.last == "null")
      #expect(jobs.listed.map(\.id) == ["other"])
      try jobs.start(StreamRequest(autoDismiss: false))
      #expect(jobs.listed.map(\.id) == ["other", "vda"])
      try jobs.dismiss()
      #expect(jobs.listed == [])
      #expect(bench.events.words.suffix(2) == ["other:null", "null"])
    }
  }

  @Test("ids are one name space of all disks, and have QEMU's form")
  func ids() throws {
    let bench = try ChainBench()
    try bench.open { disk, jobs, notes in
      for id in ["1bad", "", "a b", "-x"] {
        let error = #expect(throws: JobError.self) { try jobs.start(StreamRequest(id: id)) }
        #expect(error?.kind == .invalid)
      }
      let other = StreamJobs(
        disk: disk, time: SystemTimeSource(), ids: jobs.ids, onFailure: { _ in }, onNote: notes.add)
      defer { other.close() }
      try jobs.start(StreamRequest(speed: 1, id: "job0"))
      let error = #expect(throws: JobError.self) { try other.start(StreamRequest(id: "job0")) }
      #expect(error?.kind == .busy && error?.description.contains("job0") == true)
      try jobs.cancel()
      #expect(throws: JobError.self) { try jobs.start(StreamRequest(base: "no", id: "job0")) }
      // What was refused has given it back.
      try other.start(StreamRequest(base: "mid.qcow2", id: "job0"))
    }
  }

  @Test("a disk has so many concluded jobs, and no more")
  func manyConcluded() throws {
    let bench = try ChainBench()
    try bench.open { _, jobs, _ in
      func start(_ number: Int) throws {
        try jobs.start(StreamRequest(base: "mid.qcow2", id: "job\(number)", autoDismiss: false))
      }
      for number in 1...StreamJobs.mostConcluded { try start(number) }
      let error = #expect(throws: JobError.self) { try start(1000) }
      #expect(error?.kind == .busy && error?.description.contains("64") == true)
      try jobs.dismiss(id: "job7")
      try start(1000)
      #expect(jobs.listed.count == StreamJobs.mostConcluded)
    }
  }
}
