import HostSystem
import Testing

@testable import Jobs

private let broken = JobFailure(kind: .io, sentence: "vda: broken")

/// What may happen to a job, as a word of a table.
private enum Step: String {
  case pause, resume, cancel, fail, scanned, finalize, again, finished, closed, suspend

  func apply(to job: inout JobState) {
    switch self {
    case .pause: job.pause()
    case .resume: job.resume()
    case .cancel: job.cancel()
    case .fail: _ = job.fail(broken)
    case .scanned: job.allScanned()
    case .finalize: _ = job.finalize()
    case .again: job.scanAgain()
    case .finished: job.finished()
    case .closed: job.closed()
    case .suspend: job.suspend()
    }
  }
}

private func word(_ notice: JobState.Notice) -> String {
  switch notice {
  case .stage(let stage): stage.rawValue
  case .pending: "PENDING"
  case .error(let action): "ERROR-\(action.rawValue)"
  }
}

private let automatic: [(ErrorPolicy, String, String)] = [
  (.report, "", "created running"),
  (.report, "scanned finished closed", "created running waiting pending"),
  (.report, "pause pause", "created running paused"),
  (.report, "resume", "created running"),
  (.report, "pause resume", "created running paused running"),
  (.report, "cancel closed", "created running aborting"),
  (.report, "cancel cancel", "created running aborting"),
  (.report, "pause cancel", "created running paused running aborting"),
  (.report, "pause fail", "created running paused ERROR-report running aborting"),
  (.report, "fail closed", "created running ERROR-report aborting"),
  (.report, "fail fail", "created running ERROR-report aborting"),
  (.report, "scanned fail", "created running waiting pending aborting"),
  (.report, "scanned cancel finished", "created running waiting pending"),
  (.report, "scanned cancel fail", "created running waiting pending aborting"),
  (.report, "scanned cancel again", "created running waiting pending aborting"),
  (.report, "scanned again scanned finished", "created running waiting pending"),
  (.report, "suspend", "created running"),
  (.ignore, "fail fail scanned", "created running ERROR-ignore ERROR-ignore aborting"),
  (.ignore, "scanned fail", "created running waiting pending aborting"),
  (.stop, "fail resume scanned", "created running ERROR-stop paused running waiting pending"),
  (.stop, "fail cancel", "created running ERROR-stop paused running aborting"),
  (.stop, "pause fail resume", "created running paused ERROR-stop running"),
  (
    .stop, "scanned fail resume scanned finished",
    "created running waiting pending ERROR-stop paused running waiting pending"
  ),
  (.enospc, "fail", "created running ERROR-report aborting"),
]

private let asked: [(ErrorPolicy, String, String)] = [
  (.report, "scanned", "created running waiting pending PENDING"),
  (.report, "scanned pause", "created running waiting pending PENDING"),
  (.report, "scanned finalize finished", "created running waiting pending PENDING"),
  (.report, "scanned cancel", "created running waiting pending PENDING aborting"),
  (.report, "scanned fail", "created running waiting pending PENDING ERROR-report aborting"),
  (.report, "scanned finalize fail", "created running waiting pending PENDING aborting"),
  (
    .report, "scanned finalize again scanned finished",
    "created running waiting pending PENDING"
  ),
  (
    .stop, "scanned fail resume scanned",
    "created running waiting pending PENDING ERROR-stop paused running waiting pending PENDING"
  ),
  (
    .stop, "scanned finalize fail resume scanned finished",
    "created running waiting pending PENDING ERROR-stop paused running waiting pending"
  ),
]

@Suite("JobState's notices")
struct JobStageTests {
  private func expect(
    _ steps: String, _ told: String, _ policy: ErrorPolicy, autoFinalize: Bool
  ) throws {
    var job = JobState(policy: policy, autoFinalize: autoFinalize)
    for name in steps.split(separator: " ") {
      try #require(Step(rawValue: String(name))).apply(to: &job)
    }
    let words = job.takeNotices().map(word)
    #expect(words.joined(separator: " ") == told, "\(policy): \(steps)")
    // What is told last of the stages is where it stands.
    let stage = words.last { JobStage(rawValue: $0) != nil }
    #expect(stage == job.stage.rawValue)
    #expect(job.takeNotices() == [])
  }

  @Test("a job tells its stages and errors in QEMU's order", arguments: automatic)
  func order(policy: ErrorPolicy, steps: String, told: String) throws {
    try expect(steps, told, policy, autoFinalize: true)
  }

  @Test("a job that is to be finalized says that it waits for it, each time", arguments: asked)
  func finalizing(policy: ErrorPolicy, steps: String, told: String) throws {
    try expect(steps, told, policy, autoFinalize: false)
  }

  @Test("a job that is held from the start runs first")
  func paused() {
    var job = JobState(policy: .report, isPaused: true)
    #expect(job.takeNotices().map(word) == ["created", "running", "paused"])
  }
}
