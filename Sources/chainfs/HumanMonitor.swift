internal import ArgumentParser
internal import FoundationEssentials
internal import Glibc
internal import HostSystem

// Lines go to the mount through its file `monitor`, which understands them and carries them out. It is opened
// for each line: a prompt that somebody has left open keeps no mount from being unmounted.

struct HumanMonitor: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "monitor",
    abstract: "A prompt for QEMU's monitor commands of snapshots and streams.",
    discussion: """
      Without a terminal, lines are taken from standard input. quit, q and the end of the input leave the \
      prompt; the mount stays.
      """)

  @Argument(help: "Where the filesystem is mounted.")
  var mountpoint: String

  func run() throws {
    let target = try ControlTarget(path: mountpoint)
    if let device = target.device {
      throw CommandFailure(
        "\(mountpoint): \(device) is one device; the monitor is that of the mount:"
          + " chainfs monitor \(target.mountpoint)")
    }
    if isatty(STDIN_FILENO) == 1 && Terminal.isInteractive {
      try prompt(target)
    } else {
      try takeInput(target)
    }
  }

  private func prompt(_ target: ControlTarget) throws {
    let choices = MonitorChoices(target: target)
    let completion = WordCompletion { choices($0) }
    let editor = try LineEditor { completion.step($0) }
    let history = LineHistory(
      limit: LineEditor.historyLength, environment: ProcessInfo.processInfo.environment)
    for line in history.lines() { editor.remember(line) }
    defer { history.lines() }
    Terminal.write(
      "chainfs monitor of \(target.mountpoint) - 'help' tells the commands, 'quit' leaves the mount"
        + " as it is\n")
    while let line = editor.read() {
      if line.allSatisfy(\.isWhitespace) { continue }
      editor.remember(line)
      history.add(line)
      if try !answer(Array(line.utf8), target) { return }
    }
    // Ctrl-D; the shell's prompt begins a line of its own.
    Terminal.write("\n")
  }

  private func takeInput(_ target: ControlTarget) throws {
    var buffer = [UInt8](repeating: 0, count: 4096)
    var rest: [UInt8] = []
    while true {
      var span = buffer.mutableRawSpan
      let count = try SystemCall.readNext(STDIN_FILENO, into: &span)
      rest += buffer.prefix(count)
      while let end = rest.firstIndex(of: UInt8(ascii: "\n")) {
        let line = Array(rest[..<end])
        rest.removeSubrange(...end)
        if try !answer(line, target) { return }
      }
      if count == 0 {
        if !rest.isEmpty { _ = try answer(rest, target) }
        return
      }
    }
  }

  /// Prints what a line prints; false if it is the last one.
  private func answer(_ line: [UInt8], _ target: ControlTarget) throws -> Bool {
    let text = String(decoding: line, as: UTF8.self)
    switch LocalLine(text) {
    case .quit: return false
    case .text(let text): Terminal.write(text)
    case .help: Terminal.write(LocalLine.help(try reply(to: line, target)))
    case nil: if !text.allSatisfy(\.isWhitespace) { Terminal.write(try reply(to: line, target)) }
    }
    return true
  }

  private func reply(to line: [UInt8], _ target: ControlTarget) throws -> String {
    do {
      return try Files.answer(to: line, from: "\(target.mountpoint)/.jobs/monitor")
    } catch {
      guard Files.isDirectory(target.mountpoint + "/.jobs") else {
        throw CommandFailure("\(mountpoint): no chainfs is mounted here any more")
      }
      throw error
    }
  }
}
