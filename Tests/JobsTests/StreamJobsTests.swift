import Chain
import Foundation
import HostSystem
import Testing

@testable import Jobs

private let mebibyte: UInt64 = 1 << 20

@Suite("StreamJobs", .enabled(if: ChainBench.isPossible), .serialized, .timeLimit(.minutes(3)))
struct StreamJobsTests {
  @Test("a whole chain is copied up, and only then is the job completed")
  func wholeChain() throws {
    let bench = try ChainBench()
    try bench.open { disk, jobs, notes in
      try jobs.start(StreamRequest())
      let end = try #require(jobs.waitForEnd())
      #expect(end.state == .completed)
      #expect(end.length == 64 * mebibyte && end.offset == end.length)
      #expect(end.durable == end.offset)
      #expect(end.copied == 22 * mebibyte)
      #expect(end.copied + end.zero + end.skipped == end.length)
      #expect(try disk.layers().count == 1)
      #expect(jobs.current == nil && jobs.last == end)
      #expect(!bench.hasRecord)
      #expect(notes.texts == [])
    }
    #expect(try bench.backing() == "")
    try bench.check()
  }

  @Test("a stream to a base copies what lies above it and keeps the rest below")
  func toBase() throws {
    let bench = try ChainBench()
    try bench.open { disk, jobs, _ in
      try jobs.start(StreamRequest(base: "base.qcow2"))
      let end = try #require(jobs.waitForEnd())
      #expect(end.state == .completed)
      #expect(end.copied == 10 * mebibyte)
      #expect(end.zero == 4 * mebibyte)
      #expect(end.base == bench.path("base.qcow2"))
      #expect(try disk.layers().map(\.fileName) == ["top.qcow2", "base.qcow2"])
    }
    #expect(try bench.backing() == "base.qcow2\n")
    try bench.check()
  }

  @Test("where nothing is to be streamed the job completes at once, with no length")
  func nothingToDo() throws {
    let bench = try ChainBench()
    try bench.run("cksum top.qcow2 base.qcow2 > sums")
    try bench.open { _, jobs, _ in
      try jobs.start(StreamRequest(base: "mid.qcow2"))
      #expect(jobs.last?.state == .completed)
      #expect(jobs.last?.length == 0 && jobs.last?.offset == 0)
    }
    try bench.open("base.qcow2") { _, jobs, _ in
      try jobs.start(StreamRequest())
      #expect(jobs.waitForEnd()?.length == 0)
    }
    #expect(try bench.backing() == "mid.qcow2\n")
  }

  @Test("refusals have their kind and sentence, and change nothing")
  func refusals() throws {
    let bench = try ChainBench()
    func expect(
      _ kind: FailureKind, _ words: String, isReadOnly: Bool = false, _ request: StreamRequest
    ) throws {
      try bench.open(isReadOnly: isReadOnly) { _, jobs, _ in
        let error = #expect(throws: JobError.self) { try jobs.start(request) }
        #expect(error?.kind == kind)
        #expect(error?.description.contains(words) == true, "\(String(describing: error))")
        #expect(jobs.current == nil && jobs.last == nil && !bench.hasRecord)
      }
    }
    try expect(
      .notFound, "vda: no layer named sn9.qcow2 (have mid.qcow2, base.qcow2)",
      StreamRequest(base: "sn9.qcow2"))
    try expect(.notFound, "top.qcow2", StreamRequest(base: "top.qcow2"))
    try expect(.readOnly, "vda", isReadOnly: true, StreamRequest())
    try expect(.invalid, "backing-file", StreamRequest(backingFile: "base.qcow2"))
    try expect(
      .invalid, "expected.raw", StreamRequest(base: "base.qcow2", backingFile: "expected.raw"))
  }

  @Test("verbs without a job find none, and one job refuses another and a snapshot")
  func busy() throws {
    let bench = try ChainBench()
    try bench.open { disk, jobs, _ in
      let verbs: [() throws -> Void] = [
        { try jobs.cancel() }, { try jobs.pause() }, { try jobs.resume() },
        { try jobs.setSpeed(1) },
      ]
      for verb in verbs {
        let error = #expect(throws: JobError.self) { try verb() }
        #expect(error?.kind == .notFound)
      }
      try jobs.start(StreamRequest(speed: 1))
      // Whoever means another job does not reach this one.
      let stranger = #expect(throws: JobError.self) { try jobs.cancel(id: "other") }
      #expect(stranger?.kind == .notFound && jobs.current?.state == .running)
      let error = #expect(throws: JobError.self) { try jobs.start(StreamRequest()) }
      #expect(error?.kind == .busy)
      let other = #expect(throws: JobError.self) {
        try StreamJobs.snapshot([(jobs, bench.path("new.qcow2"))])
      }
      #expect(other?.kind == .busy)
      #expect(!FileManager.default.fileExists(atPath: bench.path("new.qcow2")))
      try jobs.cancel()
      try StreamJobs.snapshot([(jobs, bench.path("new.qcow2"))])
      #expect(try disk.layers().count == 4)
    }
  }

  @Test("a cancel works while throttled and while paused, and the job is over when it returns")
  func cancel() throws {
    let bench = try ChainBench()
    try bench.open { disk, jobs, _ in
      for isPaused in [false, true] {
        try jobs.start(StreamRequest(speed: 1))
        if isPaused {
          try jobs.pause()
          try jobs.pause()
          #expect(jobs.current?.state == .paused)
        }
        try jobs.cancel()
        #expect(jobs.current == nil)
        #expect(jobs.last?.state == .cancelled)
        #expect(!bench.hasRecord)
        #expect(try disk.layers().count == 3)
      }
    }
    try bench.check()
  }

  @Test("what a cancelled job copied is skipped by the next")
  func again() throws {
    let bench = try ChainBench()
    try bench.open { _, jobs, _ in
      try jobs.start(StreamRequest(speed: 4 << 20))
      _ = try #require(jobs.first { $0.copied >= mebibyte })
      try jobs.cancel()
      let cancelled = try #require(jobs.last)
      #expect(cancelled.durable == cancelled.offset)
      try jobs.start(StreamRequest())
      let end = try #require(jobs.waitForEnd())
      #expect(end.state == .completed)
      #expect(cancelled.copied + end.copied == 22 * mebibyte)
    }
    try bench.check()
  }

  @Test("a new speed wakes a job that the old one held for hours")
  func speed() throws {
    let bench = try ChainBench()
    try bench.open { _, jobs, _ in
      try jobs.start(StreamRequest(speed: 1))
      _ = try #require(jobs.first { $0.copied > 0 })
      #expect(jobs.current?.speed == 1)
      try jobs.setSpeed(0)
      #expect(jobs.waitForEnd()?.state == .completed)
    }
  }

  @Test("a job that was under way goes on at the next mount, with its arguments")
  func resumed() throws {
    let bench = try ChainBench()
    var started: WallTime?
    try bench.open { _, jobs, _ in
      try jobs.start(StreamRequest(base: "base.qcow2", speed: 1, onError: .stop))
      _ = try #require(jobs.first { $0.copied > 0 })
      try jobs.pause()
      started = jobs.current?.started
    }
    #expect(bench.hasRecord)
    try bench.open { _, jobs, _ in
      try jobs.resumeRecorded()
      let status = try #require(jobs.current)
      #expect(status.isResumed && status.state == .paused)
      #expect(status.speed == 1 && status.onError == .stop)
      #expect(status.base == bench.path("base.qcow2"))
      #expect(status.started.seconds == started?.seconds)
      try jobs.setSpeed(0)
      try jobs.resume()
      let end = try #require(jobs.waitForEnd())
      #expect(end.state == .completed && end.isResumed)
    }
    #expect(!bench.hasRecord)
    #expect(try bench.backing() == "base.qcow2\n")
    try bench.check()
  }

  @Test("a chain that was moved with its record is resumed by the name of its base")
  func moved() throws {
    let bench = try ChainBench()
    try bench.open { _, jobs, _ in
      try jobs.start(StreamRequest(base: "base.qcow2", speed: 1))
    }
    try bench.run("mkdir new; mv *.qcow2 .top.qcow2.chainfs-job new")
    try bench.open("new/top.qcow2") { disk, jobs, _ in
      try jobs.resumeRecorded()
      try jobs.setSpeed(0)
      #expect(jobs.waitForEnd()?.state == .completed)
      #expect(try disk.layers().map(\.fileName) == ["top.qcow2", "base.qcow2"])
    }
  }

  @Test("a record whose work is done completes at once and goes")
  func afterTheFlip() throws {
    let bench = try ChainBench()
    try bench.open { _, jobs, _ in try jobs.start(StreamRequest(speed: 1)) }
    try bench.run("qemu-img rebase -f qcow2 -b '' top.qcow2")
    try bench.open { _, jobs, _ in
      try jobs.resumeRecorded()
      #expect(jobs.last?.state == .completed && jobs.last?.isResumed == true)
    }
    #expect(!bench.hasRecord)
  }

  @Test("a torn or foreign record is told of and left alone")
  func foreignRecord() throws {
    let bench = try ChainBench()
    for content in ["", "chainfs-job 1 0\n{}\n"] {
      try bench.run("printf '\(content.replacing("\n", with: "\\n"))' > .top.qcow2.chainfs-job")
      try bench.open { _, jobs, _ in
        let error = #expect(throws: JobError.self) { try jobs.resumeRecorded() }
        #expect(error?.description.contains("job record") == true)
        #expect(jobs.current == nil && bench.hasRecord)
      }
    }
    try bench.run("rm .top.qcow2.chainfs-job")
    try bench.open { _, jobs, _ in
      try jobs.resumeRecorded()
      #expect(jobs.current == nil && jobs.last == nil)
    }
  }

  @Test("guest writes while a stream runs stay, and everything else is as it was")
  func guestWrites() throws {
    let bench = try ChainBench()
    try bench.open { disk, jobs, _ in
      try jobs.start(StreamRequest(speed: 64 << 20))
      let bytes = [UInt8](repeating: 7, count: 4096)
      for block in stride(from: UInt64(0), to: 24 * mebibyte, by: Int(mebibyte / 2)) {
        try disk.write(bytes.span.bytes, at: GuestOffset(block + 512))
      }
      try jobs.setSpeed(0)
      #expect(jobs.waitForEnd()?.state == .completed)
    }
    try bench.run(
      """
      i=0
      while [ $i -lt 48 ]; do
        head -c 4096 /dev/zero | tr '\\0' '\\007' |
          dd of=expected.raw bs=512 seek=$((i * 1024 + 1)) conv=notrunc status=none
        i=$((i + 1))
      done
      """)
    try bench.check()
  }

  @Test("waiting ends with the job, can be withdrawn, and ends with the mount")
  func waiting() throws {
    let bench = try ChainBench()
    let seen = Notes()
    try bench.open { _, jobs, _ in
      _ = jobs.onEnd { seen.add($0 == nil ? "idle" : "job") }
      #expect(seen.texts == ["idle"])
      try jobs.start(StreamRequest(speed: 1))
      let withdrawn = jobs.onEnd { _ in seen.add("withdrawn") }
      _ = jobs.onEnd { seen.add($0?.state.rawValue ?? "none") }
      withdrawn.cancel()
      try jobs.cancel()
      #expect(seen.texts == ["idle", "cancelled"])
      try jobs.start(StreamRequest(speed: 1))
      _ = jobs.onEnd { seen.add($0?.state.rawValue ?? "none") }
    }
    #expect(seen.texts == ["idle", "cancelled", "running"])
  }
}

@Suite(
  "Streaming over damage", .enabled(if: ChainBench.isPossible), .serialized,
  .timeLimit(.minutes(3)))
struct StreamErrorTests {
  /// A chain whose mid layer has compressed clusters, of which some are made unreadable. Gives the
  /// script that mends it.
  private func damaged() throws -> (ChainBench, mend: String) {
    let bench = try ChainBench()
    try bench.run(
      """
      head -c 4M /dev/urandom | base64 -w0 | head -c 4M > noise
      qemu-img create -q -f qcow2 mid.qcow2 64M
      qemu-img convert -c -f raw -O qcow2 noise mid.qcow2
      qemu-img resize -q mid.qcow2 64M
      qemu-img create -q -f qcow2 -b mid.qcow2 -F qcow2 top.qcow2
      qemu-img convert -O raw top.qcow2 expected.raw
      cp mid.qcow2 mid.good
      """)
    // A stream that begins with ones asks for the kind of block that deflate does not have; ones in
    // the middle of it may well unpack to something. The L2 entry tells where cluster 32 begins.
    try bench.run(
      """
      # The low seven bytes of an entry: flags and lengths are above.
      number() { echo $((0x$(od -An -v -j $(($1 + 1)) -N 7 -t x1 mid.qcow2 | tr -d ' '))); }
      table=$(number $(number 40))
      echo $(($(number $((table + 32 * 8))) & ((1 << 54) - 1))) > place
      head -c 4096 /dev/zero | tr '\\0' '\\377' |
        dd of=mid.qcow2 bs=4096 oflag=seek_bytes seek=$(cat place) conv=notrunc status=none
      """)
    let mend = """
      dd if=mid.good of=mid.qcow2 bs=4096 count=1 iflag=skip_bytes oflag=seek_bytes \
      skip=$(cat place) seek=$(cat place) conv=notrunc status=none
      """
    return (bench, mend)
  }

  @Test("report ends the job at the error, and the old chain stays")
  func report() throws {
    let (bench, _) = try damaged()
    try bench.open { disk, jobs, notes in
      try jobs.start(StreamRequest())
      let end = try #require(jobs.waitForEnd())
      #expect(end.state == .failed && end.error?.isEmpty == false)
      #expect(end.offset < end.length)
      #expect(try disk.layers().count == 2)
      #expect(notes.texts == [end.error])
      #expect(!bench.hasRecord)
      #expect(
        bench.events.line
          == "created running ERROR-report aborting COMPLETED-error concluded null")
    }
    try bench.run("qemu-img check -q top.qcow2")
  }

  @Test("ignore goes on to the end, and then fails with the first error on the old chain")
  func ignore() throws {
    let (bench, mend) = try damaged()
    try bench.open { disk, jobs, _ in
      try jobs.start(StreamRequest(onError: .ignore))
      let end = try #require(jobs.waitForEnd())
      #expect(end.state == .failed && end.error?.isEmpty == false)
      #expect(end.offset == end.length)
      #expect(try disk.layers().count == 2)
      let words = bench.events.words
      let errors = words.count { $0 == "ERROR-ignore" }
      #expect(errors > 0)
      #expect(
        words.filter { $0 != "ERROR-ignore" }
          == ["created", "running", "aborting", "COMPLETED-error", "concluded", "null"])
      #expect(words.firstIndex(of: "aborting") == 2 + errors)
    }
    try bench.run(mend)
    try bench.check()
  }

  @Test("stop holds the job at the error until it is resumed, and then it goes to the end")
  func stop() throws {
    let (bench, mend) = try damaged()
    try bench.open { disk, jobs, _ in
      try jobs.start(StreamRequest(onError: .stop))
      let held = try #require(jobs.first { $0.state == .stoppedOnError })
      #expect(held.error?.isEmpty == false && held.ioStatus == .failed)
      try jobs.resume()
      _ = try #require(jobs.first { $0.state == .stoppedOnError }, "the same place fails again")
      try bench.run(mend)
      try jobs.resume()
      #expect(jobs.waitForEnd()?.state == .completed)
      #expect(try disk.layers().count == 1)
      // Several threads may meet the damage before the job is held.
      let words = bench.events.words
      #expect(words.count { $0 == "ERROR-stop" } >= 2)
      #expect(
        words.filter { $0 != "ERROR-stop" } == [
          "created", "running", "paused", "running", "paused", "running", "waiting", "pending",
          "COMPLETED", "concluded", "null",
        ])
    }
    try bench.check()
  }

  @Test("a job that is held by an error can be cancelled")
  func cancelStopped() throws {
    let (bench, _) = try damaged()
    try bench.open { _, jobs, _ in
      try jobs.start(StreamRequest(onError: .stop))
      _ = try #require(jobs.first { $0.state == .stoppedOnError })
      try jobs.cancel()
      #expect(jobs.last?.state == .cancelled)
    }
  }

  @Test("enospc fails at an error that is not missing space")
  func enospc() throws {
    let (bench, _) = try damaged()
    try bench.open { _, jobs, _ in
      try jobs.start(StreamRequest(onError: .enospc))
      #expect(jobs.waitForEnd()?.state == .failed)
    }
  }

  @Test(
    "where space is missing the job is refused, or held until there is some",
    .enabled(if: geteuid() == 0))
  func space() throws {
    let bench = try ChainBench()
    try bench.run(
      """
      mkdir small; mount -t tmpfs -o size=40M none small
      qemu-img create -q -f qcow2 -b $PWD/mid.qcow2 -F qcow2 small/top.qcow2
      """)
    defer { _ = try? bench.run("umount small") }
    try bench.open("small/top.qcow2") { disk, jobs, _ in
      try jobs.start(StreamRequest(speed: 1, onError: .enospc))
      try bench.run("dd if=/dev/zero of=small/fill bs=1M count=30 status=none")
      try jobs.setSpeed(0)
      let held = try #require(jobs.first { $0.state == .stoppedOnError })
      #expect(held.ioStatus == .nospace)
      try jobs.cancel()
      let error = #expect(throws: JobError.self) { try jobs.start(StreamRequest()) }
      #expect(error?.kind == .noSpace)
      #expect(jobs.current == nil && jobs.last?.state == .cancelled)
      try bench.run("rm small/fill")
      try jobs.start(StreamRequest())
      #expect(jobs.waitForEnd()?.state == .completed)
      #expect(try disk.layers().count == 1)
    }
    try bench.run(
      """
      qemu-img check -q small/top.qcow2
      qemu-img convert -O raw mid.qcow2 mid.raw
      qemu-img compare -q small/top.qcow2 mid.raw
      """)
  }
}
