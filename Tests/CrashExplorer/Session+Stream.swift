// A stream, with the guest and the commands in between its steps.
//
// The job's only thread asks its clock for the time between steps. There the session does what a guest does,
// or changes speed or holds the job, on that thread. A cancel and an unmount wait for the job, so they are
// the session's own thread's to do: the job is paused and its clock stopped first, which leaves one possible
// order of events. So it is with a job that is pending; some are to be finalized by hand.

import BlockIO
import Chain
import HostSystem
import Jobs
import TestSupport

extension Session {
  /// Where a job comes from.
  enum StreamJob {
    case started(base: String?, speed: UInt64, autoFinalize: Bool)
    case resumed
  }

  /// Why the session's thread is needed again.
  private enum Call: Sendable {
    case ended(JobStatus?)
    case pending
    case cancel
    case unmount
  }

  /// Streams to some layer, or all of the chain.
  func stream() throws {
    let chain = expectation.oldChain
    if chain.count < 2 || template.isRaw(expectation.path) { return }
    let place = random.oneIn(2) ? nil : Int.random(in: 1..<chain.count, using: &random)
    let base = place.map { chain[$0] }
    let speed = self.speed()
    let autoFinalize = !random.oneIn(4)
    expectation.record = RecordExpectation(
      speeds: [speed], pauses: [false], base: base, mayBeMissing: true, autoFinalize: autoFinalize)
    expectation.chains = [chain, [chain[0]] + (place.map { Array(chain[$0...]) } ?? [])]
    begin(base == nil ? "stream" : "stream to a base")
    try run(.started(base: base, speed: speed, autoFinalize: autoFinalize))
  }

  private func speed() -> UInt64 {
    let cluster = UInt64(1) << UInt64(template.shape.clusterBits)
    return [0, 0, cluster * 100, cluster * 800][Int.random(in: 0..<4, using: &random)]
  }

  /// Starts a job, or goes on with the one that a record tells of, and follows it to its end.
  func run(_ origin: StreamJob) throws {
    guard let disk else { return }
    let time = StepTime(seed: random.next())
    let call = Monitor<Call?>(nil)
    let watch = PendingWatch()
    watch.onPending {
      time.stop()
      call.change { if $0 == nil { $0 = .pending } }
    }
    let jobs = StreamJobs(
      disk: disk, time: time, names: files, threads: 1, events: watch, onFailure: { _ in },
      onNote: { _ in })
    defer {
      time.stop()
      jobs.close()
    }
    switch origin {
    case .started(let base, let speed, let autoFinalize):
      try jobs.start(StreamRequest(base: base, speed: speed, autoFinalize: autoFinalize))
    case .resumed:
      try jobs.resumeRecorded()
      expectation.operation = "resumed stream"
    }
    guard let job = jobs.current else {
      return try settle(jobs.last)
    }
    expectation.record?.mayBeMissing = false
    if job.state == .paused { try resume(jobs) }
    let wait = jobs.onEnd { status in
      time.stop()
      call.change { if $0 == nil { $0 = .ended(status) } }
    }
    defer { wait.cancel() }
    wishes = name.numbers.isEmpty ? 16 : 3
    time.open { [unowned self] in
      if wishes == 0 { return }
      wishes -= 1
      do {
        if let wish = try betweenSteps(jobs) {
          time.stop()
          call.change { $0 = wish }
        }
      } catch {
        explorer.fail(name, "\(template.shape.name)\n  beside a job: \(error)")
      }
    }
    call.wait(while: { $0 == nil })
    var wish = call.withLock { $0 }
    if case .pending = wish {
      for _ in 0..<Int.random(in: 0..<3, using: &random) { try guestOperation() }
      if random.oneIn(4) { wish = random.oneIn(2) ? .cancel : .unmount }
    }
    switch wish {
    case .ended(let status): try settle(status)
    case .pending:
      begin("finalize")
      expectation.record?.isFinalized = true
      try jobs.finalize()
      try settle(jobs.last)
    case .cancel:
      begin("cancel")
      expectation.record?.mayBeMissing = true
      do throws(JobError) { try jobs.cancel() } catch {
        // A pause between two steps does not hold a job that is at its end already.
        guard case .noJob = error else { throw error }
      }
      try settle(jobs.last)
    case .unmount:
      begin("unmount with a job")
      jobs.close()
      if jobs.current == nil { try settle(jobs.last) }
      try disk.close()
      self.disk = nil
      expectation.history.flushed()
    case nil: break
    }
  }

  /// What a job that is over has left.
  private func settle(_ status: JobStatus?) throws {
    guard let status else { throw Fault("a job left no result") }
    switch status.state {
    case .completed: expectation.chains = [expectation.chains.last ?? []]
    case .cancelled: expectation.chains = [expectation.oldChain]
    case .running, .paused, .stoppedOnError, .pending, .failed:
      throw Fault("a job ended as \(status.state.rawValue): \(status.error ?? "")")
    }
    expectation.record = nil
  }

  /// What happens between two steps of a job, on its thread; gives what the session's thread has to do.
  private func betweenSteps(_ jobs: StreamJobs) throws -> Call? {
    let operation = expectation.operation
    defer { begin(operation) }
    switch Int.random(in: 0..<16, using: &random) {
    case 0..<6: try guestOperation()
    case 6:
      begin("speed")
      let speed = self.speed()
      expectation.record?.speeds.append(speed)
      try jobs.setSpeed(speed)
      expectation.record?.speeds = [speed]
    case 7:
      try pause(jobs)
      try guestOperation()
      try resume(jobs)
    case 8 where random.oneIn(3):
      try pause(jobs)
      return random.oneIn(2) ? .cancel : .unmount
    default: break
    }
    return nil
  }

  private func pause(_ jobs: StreamJobs) throws {
    begin("pause")
    expectation.record?.pauses = [false, true]
    try jobs.pause()
    expectation.record?.pauses = [true]
  }

  private func resume(_ jobs: StreamJobs) throws {
    begin("resume of a paused job")
    expectation.record?.pauses = [false, true]
    try jobs.resume()
    expectation.record?.pauses = [false]
  }
}
