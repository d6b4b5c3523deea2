internal import HostSystem
internal import Jobs

/// Events as QMP sends them; the order of the keys is QEMU's too.
enum EventText {
  /// One event of a job, on one line without a newline.
  static func line(_ event: JobEvent, at time: WallTime) -> String {
    let (name, data) = content(event)
    return line(name, data, at: time)
  }

  /// One event of the machine, on one line without a newline.
  static func line(_ event: MachineEvent, at time: WallTime) -> String {
    switch event {
    case .stop: return line("STOP", nil, at: time)
    case .resume: return line("RESUME", nil, at: time)
    case .shutdown(let reason):
      let data: [JSONText.Member] = [
        .init("guest", .bool(false)), .init("reason", .string(reason.rawValue)),
      ]
      return line("SHUTDOWN", data, at: time)
    }
  }

  private static func line(
    _ name: String, _ data: [JSONText.Member]?, at time: WallTime
  ) -> String {
    let members: [JSONText.Member] = [
      .init(
        "timestamp",
        .object([
          .init("seconds", .number(UInt64(max(0, time.seconds)))),
          .init("microseconds", .number(UInt64(time.nanoseconds / 1000))),
        ])),
      .init("event", .string(name)),
    ]
    return JSONText.object(members + (data.map { [.init("data", .object($0))] } ?? [])).line
  }

  private static func content(_ event: JobEvent) -> (name: String, data: [JSONText.Member]) {
    switch event {
    case .stage(let stage, let id):
      let data: [JSONText.Member] = [
        .init("status", .string(stage.rawValue)), .init("id", .string(id)),
      ]
      return ("JOB_STATUS_CHANGE", data)
    case .pending(let id):
      return ("BLOCK_JOB_PENDING", [.init("type", .string("stream")), .init("id", .string(id))])
    case .error(let id, let action):
      // QEMU says so of a stream whatever failed.
      let data: [JSONText.Member] = [
        .init("device", .string(id)), .init("operation", .string("read")),
        .init("action", .string(action.rawValue)),
      ]
      return ("BLOCK_JOB_ERROR", data)
    case .completed(let result): return ("BLOCK_JOB_COMPLETED", numbers(result))
    case .cancelled(let result): return ("BLOCK_JOB_CANCELLED", numbers(result))
    }
  }

  private static func numbers(_ result: JobEvent.Result) -> [JSONText.Member] {
    var members: [JSONText.Member] = [
      .init("device", .string(result.id)),
      .init("len", .number(result.length)),
      .init("offset", .number(result.offset)),
      .init("speed", .number(result.speed)),
      .init("type", .string("stream")),
    ]
    if let error = result.error { members.append(.init("error", .string(error))) }
    return members
  }
}
