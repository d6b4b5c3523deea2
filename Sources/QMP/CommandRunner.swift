internal import Control

/// Carries out the commands of one session.
struct CommandRunner: Sendable {
  private let control: ControlPlane
  private let human: MonitorRunner
  /// The end of the mount was asked for, which everybody was told of: the session is to bring it about once
  /// its reply is on the way.
  private(set) var hasQuit = false

  init(control: ControlPlane) {
    self.control = control
    human = MonitorRunner(control: control)
  }

  /// What a command returns.
  mutating func run(_ command: Command, _ members: [JSONText.Member]) throws(QMPError) -> JSONText {
    var arguments = Arguments(members)
    switch command {
    case .queryVersion: return try answer(arguments) { Command.version }
    case .queryCommands: return try answer(arguments) { Command.list }
    case .queryStatus: return try answer(arguments) { status }
    case .queryBlockstats:
      let ofNodes = try arguments.bool("query-nodes", otherwise: false)
      return try answer(arguments) { () throws(ControlError) in
        try ofNodes ? control.nodeStatistics() : control.deviceStatistics()
      }
    case .queryBlock:
      return try answer(arguments) { () throws(ControlError) in try control.blockDevices() }
    case .queryNamedBlockNodes:
      let images: NodeJSON.Images =
        try arguments.bool("flat", otherwise: false) ? .flat : .nested
      return try answer(arguments) { () throws(ControlError) in try control.blockNodes(images) }
    case .queryBlockJobs: return try answer(arguments) { control.blockJobs }
    case .queryJobs: return try answer(arguments) { control.jobs }
    case .snapshot:
      let order = try TransactionText.snapshot(&arguments)
      do { try control.snapshot(order) } catch { throw QMPError(error) }
    case .transaction:
      let actions = try TransactionText.actions(&arguments)
      do { try control.carryOut(actions) } catch { throw QMPError(error) }
    case .resize: try resize(&arguments)
    case .stream: try stream(&arguments)
    case .blockJobSetSpeed:
      let device = try arguments.string("device")
      try blockJob(.setSpeed(try arguments.integer("speed")), device, arguments)
    case .blockJobCancel:
      let device = try arguments.string("device")
      let isForced = try arguments.bool("force", otherwise: false)
      try blockJob(isForced ? .cancel : .cancelUnlessPaused, device, arguments)
    case .blockJobPause: try blockJob(.pause, try arguments.string("device"), arguments)
    case .blockJobResume: try blockJob(.resume, try arguments.string("device"), arguments)
    case .blockJobComplete: try blockJob(.complete, try arguments.string("device"), arguments)
    case .blockJobFinalize: try blockJob(.finalize, try arguments.string("id"), arguments)
    case .blockJobDismiss: try blockJob(.dismiss, try arguments.string("id"), arguments)
    case .jobPause: try job(.pause, &arguments)
    case .jobResume: try job(.resume, &arguments)
    case .jobCancel: try job(.cancel, &arguments)
    case .jobComplete: try job(.complete, &arguments)
    case .jobFinalize: try job(.finalize, &arguments)
    case .jobDismiss: try job(.dismiss, &arguments)
    case .humanMonitorCommand:
      let line = try arguments.string("command-line")
      // There are no processors that it could choose from.
      _ = try arguments.optionalInteger("cpu-index")
      try arguments.finish()
      if MonitorLine(line) == .quit {
        quit()
        return .string("")
      }
      return .string(human.run(line))
    case .stop:
      try arguments.finish()
      do { try control.stop() } catch { throw QMPError(error) }
    case .cont:
      try arguments.finish()
      control.cont()
    case .quit:
      try arguments.finish()
      quit()
    }
    return .object([])
  }

  /// What a question that takes no more arguments returns.
  private func answer(
    _ arguments: Arguments, _ body: () throws(ControlError) -> JSONText
  ) throws(QMPError) -> JSONText {
    try arguments.finish()
    do { return try body() } catch { throw QMPError(error) }
  }

  private mutating func quit() {
    control.announceEnd(.quit)
    hasQuit = true
  }

  private var status: JSONText {
    let isPaused = control.isPaused
    return .object([
      .init("running", .bool(!isPaused)), .init("status", .string(isPaused ? "paused" : "running")),
    ])
  }

  private func resize(_ arguments: inout Arguments) throws(QMPError) {
    let device = try arguments.optionalString("device")
    let node = try arguments.optionalString("node-name")
    let size = try arguments.integer("size")
    try arguments.finish()
    do { try control.resize(device: device, node: node, to: size) } catch { throw QMPError(error) }
  }

  private func stream(_ arguments: inout Arguments) throws(QMPError) {
    let id = try arguments.optionalString("job-id")
    var order = StreamOrder(device: try arguments.string("device"))
    order.jobID = id
    order.base = try arguments.optionalString("base")
    order.baseNode = try arguments.optionalString("base-node")
    order.backingFile = try arguments.optionalString("backing-file")
    // No layer is a bare protocol, so there is no such name that could stand in a header.
    _ = try arguments.bool("backing-mask-protocol", otherwise: false)
    order.bottom = try arguments.optionalString("bottom")
    order.speed = try arguments.optionalInteger("speed") ?? 0
    order.onError = try arguments.choice("on-error", otherwise: order.onError)
    // There is no filter that it could name.
    _ = try arguments.optionalString("filter-node-name")
    order.autoFinalize = try arguments.bool("auto-finalize", otherwise: true)
    order.autoDismiss = try arguments.bool("auto-dismiss", otherwise: true)
    try arguments.finish()
    do { try control.stream(order) } catch { throw QMPError(error) }
  }

  private func blockJob(
    _ action: JobAction, _ id: String, _ arguments: Arguments
  ) throws(QMPError) {
    try arguments.finish()
    do { try control.act(action, onJob: id) } catch { throw .ofBlockJob(error) }
  }

  private func job(_ action: JobAction, _ arguments: inout Arguments) throws(QMPError) {
    let id = try arguments.string("id")
    try arguments.finish()
    do { try control.act(action, onJob: id) } catch { throw QMPError(error) }
  }
}
