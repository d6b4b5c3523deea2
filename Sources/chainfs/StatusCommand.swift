internal import ArgumentParser

struct Status: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Shows the jobs of a mount, or the job or last result of one device.")

  @OptionGroup var place: TargetArgument
  @Flag(help: "Go on showing until no job is left; draws bars on a terminal.")
  var watch = false

  @Flag(help: "Print the number of the process that serves the mount, and nothing else.")
  var pid = false

  func run() throws {
    let target = try place.resolve()
    if pid { return Terminal.write("\(try Processes.server(of: target.mountpoint))\n") }
    guard watch else { return Terminal.write(try text(of: target)) }
    let view = ProgressView()
    var last = ""
    while true {
      let jobs = try target.devices.map {
        JobProgress(device: $0, text: try target.read("status", of: $0))
      }
      if view.isLive {
        view.show(jobs.filter { $0["state"] != nil }.map(\.bar))
      } else {
        // Into a pipe: a new text when there is one.
        let now = jobs.filter(\.isActive).map { $0.line + "\n" }.joined()
        if now != last { Terminal.write(now) }
        last = now
      }
      guard jobs.contains(where: \.isActive) else { break }
      Clock.wait(milliseconds: 250)
    }
    view.finish()
    Terminal.write(try text(of: target))
  }

  private func text(of target: ControlTarget) throws -> String {
    if let device = target.device {
      return try target.read("status", of: device)
    }
    return try Files.text(of: target.mountpoint + "/.jobs/status")
  }
}
