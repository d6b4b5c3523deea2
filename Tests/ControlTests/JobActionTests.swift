import Jobs
import Testing

@testable import Control

@Suite struct JobActionTests {
  @Test(
    "a verb is taken at the stages at which QEMU takes it",
    arguments: [
      (JobAction.cancel, [JobStage.created, .running, .paused, .waiting, .pending]),
      (.cancelUnlessPaused, [.created, .running, .paused, .waiting, .pending]),
      (.pause, [.created, .running, .paused]), (.resume, [.created, .running, .paused]),
      (.setSpeed(0), [.created, .running, .paused]), (.complete, []), (.finalize, [.pending]),
      (.dismiss, [.concluded]),
    ])
  func stages(action: JobAction, stages: [JobStage]) {
    #expect(JobStage.allCases.filter { action.isAllowed(in: $0) } == stages)
  }
}
