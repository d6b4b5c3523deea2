import Chain
import Foundation
import HostSystem
import Testing

@testable import Jobs

/// Streams into `mid.qcow2`, which lies below the active image and above the base.
@Suite("InnerJobs", .enabled(if: ChainBench.isPossible), .serialized, .timeLimit(.minutes(3)))
struct InnerJobsTests {
  private func withInner(
    _ bench: ChainBench, _ image: String = "top.qcow2", isReadOnly: Bool = false,
    _ body: (Disk, StreamJobs, InnerJobs, Notes) throws -> Void
  ) throws {
    try bench.open(image, isReadOnly: isReadOnly) { disk, jobs, notes in
      let inner = InnerJobs(beside: jobs)
      defer { inner.close() }
      try body(disk, jobs, inner, notes)
    }
  }

  private func hasRecord(_ bench: ChainBench) -> Bool {
    FileManager.default.fileExists(atPath: bench.path(".mid.qcow2.chainfs-job"))
  }

  private func middle(_ disk: Disk) throws -> LayerID { try disk.findLayer(named: "mid.qcow2") }

  @Test("the layer gets all that lies below it, and the active image nothing")
  func completes() throws {
    let bench = try ChainBench()
    try bench.run("cksum top.qcow2 > sums")
    try withInner(bench) { disk, jobs, inner, notes in
      try inner.start(StreamRequest(id: "j"), into: try middle(disk))
      let job = try #require(inner.all.first)
      let end = try #require(job.waitForEnd())
      #expect(end.state == .completed && end.id == "j" && end.device == "vda")
      // What the middle layer has itself is not copied.
      #expect(end.copied == 12 << 20 && end.offset == 64 << 20)
      #expect(try disk.layers().map(\.fileName) == ["top.qcow2", "mid.qcow2"])
      #expect(!hasRecord(bench) && jobs.current == nil && jobs.last == nil)
      #expect(notes.texts == [])
      #expect(
        bench.events.line
          == "created running waiting pending COMPLETED concluded null")
    }
    try bench.run("cksum top.qcow2 | cmp - sums; qemu-img check -q mid.qcow2")
    #expect(try bench.run("qemu-img info mid.qcow2 | grep -c '^backing' || :") == "0\n")
    try bench.check()
  }

  @Test("a job that an unmount stopped goes on at the next mount, one that was cancelled does not")
  func resumes() throws {
    let bench = try ChainBench()
    let request = StreamRequest(speed: 1, id: "j", autoDismiss: false)
    try withInner(bench) { disk, _, inner, _ in
      try inner.start(request, into: try middle(disk))
      #expect(hasRecord(bench))
    }
    #expect(hasRecord(bench))
    try withInner(bench, isReadOnly: true) { _, _, inner, _ in
      #expect(inner.resumeRecorded().isEmpty && inner.all.isEmpty)
    }
    try withInner(bench) { disk, jobs, inner, _ in
      try jobs.resumeRecorded()
      #expect(jobs.current == nil && jobs.last == nil)
      #expect(inner.resumeRecorded().isEmpty)
      let job = try #require(inner.all.first)
      #expect(job.current?.isResumed == true && job.current?.id == "j" && job.current?.speed == 1)
      try job.setSpeed(0)
      #expect(job.waitForEnd()?.state == .completed)
      #expect(job.listed.map(\.stage) == [.concluded] && !hasRecord(bench))
      #expect(try disk.layers().count == 2)
    }
    try bench.check()
    let other = try ChainBench()
    try withInner(other) { disk, _, inner, _ in
      try inner.start(request, into: try middle(disk))
      try #require(inner.all.first).cancel()
      #expect(!hasRecord(other))
    }
    try other.run("qemu-img check -q mid.qcow2")
    try other.check()
  }

  @Test("a record goes with its image: inner below, a job like any other once it is mounted itself")
  func records() throws {
    let bench = try ChainBench()
    try withInner(bench) { disk, _, inner, _ in
      try inner.start(StreamRequest(speed: 1, id: "j"), into: try middle(disk))
    }
    try bench.open("mid.qcow2") { disk, jobs, _ in
      try jobs.resumeRecorded()
      #expect(jobs.current?.id == "j")
      // From here on it is the record of an active image.
      try jobs.setSpeed(2)
    }
    #expect(hasRecord(bench))
    try withInner(bench) { disk, _, inner, notes in
      #expect(inner.resumeRecorded().isEmpty && inner.all.isEmpty && notes.texts == [])
      let count = try disk.layers().count
      #expect(count == 3)
    }
    #expect(hasRecord(bench))
    // One that is torn is told of.
    try bench.run("head -c 40 .mid.qcow2.chainfs-job > t; mv t .mid.qcow2.chainfs-job")
    try withInner(bench) { _, _, inner, _ in
      #expect(inner.resumeRecorded().map(\.kind) == [.corrupt])
    }
    try bench.check()
  }

  @Test("refusals have their kind, and change nothing")
  func refusals() throws {
    let bench = try ChainBench()
    func expect(
      _ kind: FailureKind, isReadOnly: Bool = false, _ request: StreamRequest
    ) throws {
      try withInner(bench, isReadOnly: isReadOnly) { disk, _, inner, _ in
        let error = #expect(throws: JobError.self) {
          try inner.start(request, into: try middle(disk))
        }
        #expect(error?.kind == kind, "\(String(describing: error))")
        #expect(inner.all.isEmpty && !hasRecord(bench))
        // Its layers and its id are free.
        if !isReadOnly {
          try inner.start(StreamRequest(speed: 1, id: "j"), into: try middle(disk))
          try #require(inner.all.first).cancel()
        }
      }
    }
    try expect(.invalid, StreamRequest())
    try expect(.invalid, StreamRequest(id: "1x"))
    try expect(.invalid, StreamRequest(backingFile: "base.qcow2", id: "j"))
    try expect(.notFound, StreamRequest(base: "top.qcow2", id: "j"))
    try expect(.notFound, StreamRequest(base: "mid.qcow2", id: "j"))
    try expect(.readOnly, isReadOnly: true, StreamRequest(id: "j"))
    try withInner(bench) { disk, jobs, inner, _ in
      try jobs.start(StreamRequest(speed: 1))
      let error = #expect(throws: JobError.self) {
        try inner.start(StreamRequest(id: "j"), into: try middle(disk))
      }
      #expect(error?.kind == .busy)
      try jobs.cancel()
      inner.close()
      let closed = #expect(throws: JobError.self) {
        try inner.start(StreamRequest(id: "j"), into: try middle(disk))
      }
      #expect(closed?.kind == .busy)
    }
    try bench.check()
  }
}
