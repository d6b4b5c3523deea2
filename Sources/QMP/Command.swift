internal import Control

/// The commands of an open session. The raw values are QEMU's names.
enum Command: String, CaseIterable {
  case queryVersion = "query-version"
  case queryCommands = "query-commands"
  case queryStatus = "query-status"
  case queryBlock = "query-block"
  case queryNamedBlockNodes = "query-named-block-nodes"
  case queryBlockstats = "query-blockstats"
  case queryBlockJobs = "query-block-jobs"
  case queryJobs = "query-jobs"
  case snapshot = "blockdev-snapshot-sync"
  case transaction
  case resize = "block_resize"
  case stream = "block-stream"
  case blockJobSetSpeed = "block-job-set-speed"
  case blockJobCancel = "block-job-cancel"
  case blockJobPause = "block-job-pause"
  case blockJobResume = "block-job-resume"
  case blockJobComplete = "block-job-complete"
  case blockJobFinalize = "block-job-finalize"
  case blockJobDismiss = "block-job-dismiss"
  case jobPause = "job-pause"
  case jobResume = "job-resume"
  case jobCancel = "job-cancel"
  case jobComplete = "job-complete"
  case jobFinalize = "job-finalize"
  case jobDismiss = "job-dismiss"
  case humanMonitorCommand = "human-monitor-command"
  case stop
  case cont
  case quit

  /// What query-commands returns.
  static let list = JSONText.array(
    (["qmp_capabilities"] + allCases.map(\.rawValue)).map { .object([.init("name", .string($0))]) })

  /// What query-version returns: the QEMU whose commands these are, and who answers.
  static let version = JSONText.object([
    .init(
      "qemu",
      .object([.init("major", .number(11)), .init("minor", .number(1)), .init("micro", .number(0))])
    ),
    .init("package", .string("chainfs")),
  ])
}
