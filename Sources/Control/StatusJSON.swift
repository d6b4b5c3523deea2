internal import Jobs

/// The status files of jobs as JSON.
enum StatusJSON {
  /// What QMP's query-block-jobs returns for one job.
  static func entry(_ job: JobStatus) -> [JSONText.Member] {
    var members: [JSONText.Member] = [
      .init("type", .string("stream")),
      .init("device", .string(job.id)),
      .init("len", .number(job.length)),
      .init("offset", .number(job.offset)),
      .init("busy", .bool(job.isBusy)),
      .init("paused", .bool(job.isHeld)),
      .init("speed", .number(job.speed)),
      .init("io-status", .string(job.ioStatus.rawValue)),
      .init("ready", .bool(false)),
      .init("status", .string(job.stage.rawValue)),
      .init("auto-finalize", .bool(job.autoFinalize)),
      .init("auto-dismiss", .bool(job.autoDismiss)),
    ]
    if let error = job.error { members.append(.init("error", .string(error))) }
    return members
  }

  /// The array that query-block-jobs returns.
  static func all(_ jobs: [JobStatus]) -> JSONText {
    .array(
      StatusText.newestFirst(jobs).map { .object(entry($0) + ending($0)) })
  }

  /// The array that query-jobs returns.
  static func allBrief(_ jobs: [JobStatus]) -> JSONText {
    .array(
      StatusText.newestFirst(jobs).map { job in
        var members: [JSONText.Member] = [
          .init("id", .string(job.id)), .init("type", .string("stream")),
          .init("status", .string(job.stage.rawValue)),
          .init("current-progress", .number(job.offset)),
          .init("total-progress", .number(job.length)),
        ]
        if let error = job.error { members.append(.init("error", .string(error))) }
        return .object(members + ending(job))
      })
  }

  /// QEMU tells a cancel as an error too.
  private static func ending(_ job: JobStatus) -> [JSONText.Member] {
    guard job.state == .cancelled, job.error == nil else { return [] }
    return [.init("error", .string("Operation canceled"))]
  }

  /// The `status.json` file of one device.
  static func device(current: JobStatus?, last: JobStatus?) -> String {
    JSONText.object([
      .init("job", current.map { .object(entry($0) + numbers($0)) } ?? .null),
      .init("last", last.map { .object(entry($0) + numbers($0)) } ?? .null),
    ]).line + "\n"
  }

  /// What `status` tells beyond QEMU.
  private static func numbers(_ job: JobStatus) -> [JSONText.Member] {
    var members: [JSONText.Member] = [
      .init("state", .string(job.state.rawValue)),
      .init("resumed", .bool(job.isResumed)),
      .init("copied", .number(job.copied)),
      .init("zero", .number(job.zero)),
      .init("skipped", .number(job.skipped)),
      .init("durable", .number(job.durable)),
    ]
    if let rate = job.rate { members.append(.init("rate", .number(rate))) }
    if let eta = job.eta { members.append(.init("eta", .number(eta))) }
    if let base = job.base { members.append(.init("base", .string(base))) }
    members.append(.init("on-error", .string(job.onError.rawValue)))
    members.append(.init("started", .string(StatusText.timestamp(job.started))))
    if let ended = job.ended {
      members.append(.init("ended", .string(StatusText.timestamp(ended))))
    }
    return members
  }
}
