internal import Control

/// A line of the human monitor, understood.
enum MonitorLine: Equatable {
  /// There is nothing to do but to print this.
  case text(String)
  case blockJobs
  case block(BlockQuestion)
  case status
  case stop
  case cont
  case quit
  case resize(device: String, size: Int64)
  case stream(StreamOrder)
  case snapshot(SnapshotOrder)
  case act(JobAction, job: String)

  init(_ line: String) {
    var rest = Substring(line)
    let name = Self.takeName(&rest)
    if name.isEmpty {
      self = .text("")
    } else if let command = MonitorCommand(name: name) {
      self.init(command, rest, line, named: name)
    } else {
      self = Self.unknown(line, rest)
    }
  }

  private init(
    _ command: MonitorCommand, _ rest: Substring, _ line: String, named name: String
  ) {
    switch command {
    case .info: self.init(info: rest, line)
    case .help: self = .text(Self.help(rest, line))
    case .blockJobCancel, .blockJobComplete, .blockJobPause, .blockJobResume, .blockJobSetSpeed,
      .blockResize, .blockStream, .cont, .quit, .snapshot, .stop:
      do throws(MonitorWords.Fault) {
        var words = MonitorWords(rest, of: command.title)
        self = try Self.order(command, &words)
      } catch { self = Self.complaint(error, about: name) }
    }
  }

  private init(info rest: Substring, _ line: String) {
    var rest = rest
    let name = Self.takeName(&rest)
    if name.isEmpty {
      self = .text(MonitorCommand.info.usage)
      return
    }
    guard let subject = MonitorCommand.Subject(rawValue: name) else {
      self = Self.unknown(line, rest)
      return
    }
    do throws(MonitorWords.Fault) {
      var words = MonitorWords(rest, of: name)
      let options = try words.options(subject == .block ? "nv" : "")
      switch subject {
      case .block:
        self = .block(
          BlockQuestion(
            name: try words.optionalWord("block device name"), ofNodes: options.contains("n"),
            isVerbose: options.contains("v")))
      case .blockJobs: self = .blockJobs
      case .status: self = .status
      }
      try words.finish()
    } catch { self = Self.complaint(error, about: "info \(name)") }
  }

  private static func order(
    _ command: MonitorCommand, _ words: inout MonitorWords
  ) throws(MonitorWords.Fault) -> MonitorLine {
    if let line = machine(command) {
      try words.finish()
      return line
    }
    var options: Set<Character> = []
    // Some write it. It changes nothing, and QEMU would take it for a device.
    if command == .blockStream { words.skip("-a") }
    if command == .blockJobCancel { options = try words.options("f") }
    if command == .snapshot { options = try words.options("n") }
    let device = try words.word("block device name")
    let line: MonitorLine
    switch command {
    case .blockStream:
      var order = StreamOrder(device: device)
      // As in QEMU the device may be a node, whose job is called after it.
      order.jobID = device
      order.speed = try words.optionalSize() ?? 0
      order.base = try words.optionalWord("string")
      line = .stream(order)
    case .snapshot:
      let file = try words.optionalWord("string")
      let format = try words.optionalWord("string")
      try words.finish()
      guard let file else { return .text("Error: Parameter 'snapshot-file' is missing\n") }
      var order = SnapshotOrder(device: device, file: file)
      if let format { order.format = format }
      if options.contains("n") { order.mode = .existing }
      line = .snapshot(order)
    case .blockJobSetSpeed: line = .act(.setSpeed(try words.size()), job: device)
    case .blockJobCancel:
      line = .act(options.contains("f") ? .cancel : .cancelUnlessPaused, job: device)
    case .blockJobPause: line = .act(.pause, job: device)
    case .blockJobResume: line = .act(.resume, job: device)
    case .blockResize: line = .resize(device: device, size: try words.size())
    case .blockJobComplete, .cont, .help, .info, .quit, .stop:
      line = .act(.complete, job: device)
    }
    try words.finish()
    return line
  }

  /// What takes no arguments.
  private static func machine(_ command: MonitorCommand) -> MonitorLine? {
    switch command {
    case .cont: .cont
    case .quit: .quit
    case .stop: .stop
    case .blockJobCancel, .blockJobComplete, .blockJobPause, .blockJobResume, .blockJobSetSpeed,
      .blockResize, .blockStream, .help, .info, .snapshot:
      nil
    }
  }

  private static func help(_ rest: Substring, _ line: String) -> String {
    var rest = rest
    let name = takeName(&rest)
    if name.isEmpty { return MonitorCommand.allCases.map(\.listing).joined() }
    guard let command = MonitorCommand(name: name) else { return "unknown command: '\(name)'\n" }
    if command == .info {
      let name = takeName(&rest)
      if let subject = MonitorCommand.Subject(rawValue: name) { return subject.usage }
      if !name.isEmpty { return "unknown command: 'info \(name)'\n" }
    }
    return command.usage
  }

  private static func complaint(
    _ fault: MonitorWords.Fault, about topic: String
  ) -> MonitorLine {
    .text("\(fault.text)\nTry \"help \(topic)\" for more information\n")
  }

  private static func unknown(_ line: String, _ rest: Substring) -> MonitorLine {
    .text("unknown command: '\(line[..<rest.startIndex])'\n")
  }

  /// The name that comes next, empty at the end of the line.
  private static func takeName(_ rest: inout Substring) -> String {
    let text = rest.utf8.drop(while: MonitorWords.isBlank)
    let name = text.prefix { !MonitorWords.isBlank($0) }
    rest = Substring(text.dropFirst(name.count))
    return String(Substring(name))
  }
}
