internal import Chain
internal import Jobs

/// A verb that is written to a device's control file of the same name.
package enum ControlVerb: String, Sendable, CaseIterable {
  /// Starts streaming.
  case stream
  /// Cancels the job.
  case cancel
  /// Sets the running job's limit.
  case speed
  /// Holds the job.
  case pause
  /// Lets the job go on.
  case resume
  /// Lets a pending job write its header.
  case finalize
  /// Lets concluded jobs go.
  case dismiss
  /// Takes a live snapshot.
  case snapshot
  /// Holds the guest's requests.
  case stop
  /// Lets the guest's requests go on.
  case cont

  /// How it is used, in one line without a newline.
  package var usage: String {
    switch self {
    case .stream:
      "[BASE | base=NAME] [speed=SIZE] [on-error=report|ignore|stop|enospc] [backing-file=STRING]"
        + " [id=ID] [auto-finalize=yes|no] [auto-dismiss=yes|no]"
    case .cancel, .pause, .resume, .finalize, .stop, .cont: "an empty line, or 1"
    case .dismiss: "[id=ID]; an empty line, or 1, for all of the device"
    case .speed: "SIZE"
    case .snapshot: "PATH [format=qcow2] [mode=absolute-paths|existing]"
    }
  }
}

/// A control write, understood.
enum ControlCommand: Equatable {
  case stream(StreamRequest)
  case cancel
  case speed(UInt64)
  case pause
  case resume
  case finalize
  case dismiss(id: String?)
  case snapshot(path: String, format: String, mode: SnapshotMode)
  case stop
  case cont

  init(_ verb: ControlVerb, bytes: [UInt8]) throws(ControlError) {
    let text = try CommandText(bytes: bytes)
    switch verb {
    case .stream: self = .stream(try Self.request(text))
    case .cancel:
      try text.requireNothing("cancel")
      self = .cancel
    case .speed:
      self = .speed(try Self.speed(text))
    case .pause:
      try text.requireNothing("pause")
      self = .pause
    case .resume:
      try text.requireNothing("resume")
      self = .resume
    case .finalize:
      try text.requireNothing("finalize")
      self = .finalize
    case .dismiss: self = try Self.dismissal(text)
    case .snapshot: self = try Self.snapshot(text)
    case .stop:
      try text.requireNothing("stop")
      self = .stop
    case .cont:
      try text.requireNothing("cont")
      self = .cont
    }
  }

  private static func request(_ text: CommandText) throws(ControlError) -> StreamRequest {
    try text.allow([
      "base", "speed", "on-error", "backing-file", "id", "auto-finalize", "auto-dismiss",
    ])
    var request = StreamRequest()
    request.base = text.values["base"]
    if let bare = text.bare {
      if request.base != nil { throw .invalid("the base is given twice") }
      request.base = bare
    }
    if request.base?.isEmpty == true {
      throw .invalid("base= is empty; leave it out to drop all layers")
    }
    if let speed = text.values["speed"] { request.speed = try size(speed, of: "speed") }
    if let policy = text.values["on-error"] {
      guard let onError = ErrorPolicy(rawValue: policy) else {
        throw .invalid("on-error is report, ignore, stop or enospc, not \(policy)")
      }
      request.onError = onError
    }
    request.backingFile = text.values["backing-file"]
    if request.backingFile?.isEmpty == true { throw .invalid("backing-file= is empty") }
    request.id = text.values["id"]
    request.autoFinalize = try flag("auto-finalize", text)
    request.autoDismiss = try flag("auto-dismiss", text)
    return request
  }

  /// A key that is yes, unless it is given as no.
  private static func flag(_ key: String, _ text: CommandText) throws(ControlError) -> Bool {
    switch text.values[key] {
    case nil, "yes": return true
    case "no": return false
    case .some(let other): throw .invalid("\(key) is yes or no, not \(other)")
    }
  }

  private static func dismissal(_ text: CommandText) throws(ControlError) -> ControlCommand {
    try text.allow(["id"])
    if let bare = text.bare, bare != "1" {
      throw .invalid("dismiss takes id=ID, an empty line or 1, not \(bare)")
    }
    return .dismiss(id: text.values["id"])
  }

  private static func snapshot(_ text: CommandText) throws(ControlError) -> ControlCommand {
    try text.allow(["format", "mode"])
    guard let path = text.bare, !path.isEmpty else {
      throw .invalid("snapshot needs the path of the new image")
    }
    return .snapshot(
      path: path, format: text.values["format"] ?? "qcow2", mode: try mode(text.values["mode"]))
  }

  static func mode(_ word: String?) throws(ControlError) -> SnapshotMode {
    guard let word else { return .absolutePaths }
    guard let mode = SnapshotOrder.Mode(rawValue: word) else {
      throw .invalid("mode is absolute-paths or existing, not \(word)")
    }
    return mode.inChain
  }

  static func speed(_ text: CommandText) throws(ControlError) -> UInt64 {
    try text.allow([])
    guard let word = text.bare else { throw .invalid("speed needs a size, such as 200M") }
    return try size(word, of: "speed")
  }

  private static func size(_ text: String, of name: String) throws(ControlError) -> UInt64 {
    if let bytes = SizeText.bytes(text) { return bytes }
    throw .invalid(
      "\(name) is whole bytes, or a number with K, M, G or T, below 2^63; not \(text)")
  }
}
