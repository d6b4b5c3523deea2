import HostSystem
import Testing

@testable import Jobs

private let broken = JobFailure(kind: .io, sentence: "vda: broken")
private let full = JobFailure(kind: .noSpace, sentence: "vda: full")

private func state(_ phase: JobState.Phase, _ policy: ErrorPolicy = .report) -> JobState {
  var state = JobState(policy: policy, isPaused: phase == .paused)
  switch phase {
  case .running, .paused: break
  case .stopped(let failure):
    state = JobState(policy: .stop)
    _ = state.fail(failure)
  case .pending:
    state = JobState(policy: policy, autoFinalize: false)
    state.allScanned()
  case .finishing: state.allScanned()
  case .ending(let outcome), .ended(let outcome):
    switch outcome {
    case .completed:
      state.allScanned()
      state.finished()
    case .cancelled: state.cancel()
    case .failed(let failure): _ = state.fail(failure)
    }
    if case .ended = phase { state.closed() }
  case .suspended: state.suspend()
  }
  return state
}

private let phases: [JobState.Phase] = [
  .running, .paused, .stopped(broken), .pending, .finishing, .ending(.completed),
  .ending(.cancelled),
  .ending(.failed(broken)), .ended(.completed), .ended(.cancelled), .ended(.failed(broken)),
  .suspended,
]

@Suite("JobState")
struct JobStateTests {
  @Test("every phase can be reached", arguments: phases)
  func reach(phase: JobState.Phase) {
    #expect(state(phase).phase == phase)
  }

  @Test("a cancel ends what runs or is held, and leaves what writes its header or is over")
  func cancel() {
    for phase in phases {
      var job = state(phase)
      job.cancel()
      switch phase {
      case .running, .paused, .stopped, .pending: #expect(job.phase == .ending(.cancelled))
      default: #expect(job.phase == phase)
      }
    }
  }

  @Test("pause holds only what runs, resume lets go only what is held")
  func pauseAndResume() {
    for phase in phases {
      var paused = state(phase)
      paused.pause()
      #expect(paused.phase == (phase == .running ? .paused : phase))
      var resumed = state(phase)
      resumed.resume()
      switch phase {
      case .paused, .stopped: #expect(resumed.phase == .running)
      default: #expect(resumed.phase == phase)
      }
    }
  }

  @Test("only a pending job can be finalized, and then it writes its header")
  func finalize() {
    for phase in phases {
      var job = state(phase)
      #expect(job.finalize() == (phase == .pending))
      #expect(job.phase == (phase == .pending ? .finishing : phase))
    }
  }

  @Test("who finalizes is told why the job has not completed, whatever became of it")
  func unfinished() {
    for phase in phases {
      let kind = state(phase).unfinished(device: "vda")?.kind
      switch phase {
      case .stopped, .ended(.failed): #expect(kind == broken.kind)
      case .ended(.cancelled): #expect(kind == .notFound)
      case .suspended: #expect(kind == .busy)
      default: #expect(kind == nil)
      }
    }
  }

  @Test(
    "an error of a pending job ends it, or holds it by its policy",
    arguments: [
      (.report, .drop, .ending(.failed(broken))), (.ignore, .drop, .ending(.failed(broken))),
      (.stop, .retry, .stopped(broken)), (.enospc, .drop, .ending(.failed(broken))),
    ] as [(ErrorPolicy, JobState.Reaction, JobState.Phase)])
  func failsPending(policy: ErrorPolicy, reaction: JobState.Reaction, phase: JobState.Phase) {
    var job = state(.pending, policy)
    #expect(job.fail(broken) == reaction)
    #expect(job.phase == phase)
  }

  @Test("a finalized job that has to copy more, or was held, does not wait again")
  func finalizedOnce() {
    var job = state(.pending, .stop)
    let isFinalized = job.finalize()
    #expect(isFinalized)
    job.scanAgain()
    job.allScanned()
    #expect(job.phase == .finishing)
    _ = job.fail(broken)
    job.resume()
    job.allScanned()
    #expect(job.phase == .finishing)
  }

  @Test(
    "an error acts by the policy",
    arguments: [
      (.report, broken, .drop, .ending(.failed(broken))),
      (.report, full, .drop, .ending(.failed(full))),
      (.ignore, broken, .passOver, .running),
      (.stop, broken, .retry, .stopped(broken)),
      (.stop, full, .retry, .stopped(full)),
      (.enospc, full, .retry, .stopped(full)),
      (.enospc, broken, .drop, .ending(.failed(broken))),
    ] as [(ErrorPolicy, JobFailure, JobState.Reaction, JobState.Phase)])
  func policies(
    policy: ErrorPolicy, failure: JobFailure, reaction: JobState.Reaction, phase: JobState.Phase
  ) {
    var job = JobState(policy: policy)
    #expect(job.fail(failure) == reaction)
    #expect(job.phase == phase)
  }

  @Test("ignored errors let the job go on to the end and fail there with the first of them")
  func ignored() {
    var job = JobState(policy: .ignore)
    _ = job.fail(broken)
    _ = job.fail(full)
    job.allScanned()
    #expect(job.phase == .ending(.failed(broken)))
  }

  @Test("a header that cannot be written fails an ignoring job, and holds a stopping one")
  func finishing() {
    var ignoring = state(.finishing, .ignore)
    #expect(ignoring.fail(full) == .drop)
    #expect(ignoring.phase == .ending(.failed(full)))
    var stopping = state(.finishing, .stop)
    #expect(stopping.fail(full) == .retry)
    stopping.resume()
    stopping.allScanned()
    stopping.finished()
    #expect(stopping.phase == .ending(.completed))
  }

  @Test(
    "a cancel during the header takes hold where the header fails, by any policy",
    arguments: [.report, .ignore, .stop, .enospc] as [ErrorPolicy])
  func cancelWhileFinishing(policy: ErrorPolicy) {
    var failing = state(.finishing, policy)
    failing.cancel()
    #expect(failing.fail(full) == .drop)
    #expect(failing.phase == .ending(.cancelled))
    var again = state(.finishing, policy)
    again.cancel()
    again.scanAgain()
    #expect(again.phase == .ending(.cancelled))
    var completing = state(.finishing, policy)
    completing.cancel()
    completing.finished()
    #expect(completing.phase == .ending(.completed))
  }

  @Test("an error after the end changes nothing")
  func late() {
    for phase in phases {
      switch phase {
      case .ending, .ended, .suspended:
        var job = state(phase)
        #expect(job.fail(full) == .drop)
        #expect(job.phase == phase)
      default: break
      }
    }
  }
}
