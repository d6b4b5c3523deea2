internal import ArgumentParser

struct Stream: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Copies the layers of a device up into its active image.",
    discussion: "Without --base the whole chain is copied and the backing file dropped.")

  @OptionGroup var place: TargetArgument
  @Flag(help: "Return when the job has ended; draws a bar on a terminal.")
  var wait = false
  @Option(help: "The layer to keep, by file name, path or backing string.")
  var base: String?
  @Option(help: "The limit in bytes a second (K, M, G, T for powers of 1024; 0 for none).")
  var speed: String?
  @Option(help: "report, ignore, stop or enospc.")
  var onError: String?
  @Option(help: "The string for the header, instead of the one the chain had.")
  var backingFile: String?
  @Option(help: "What the job is called, instead of by the device's name.")
  var id: String?
  @Option(help: "yes, or no: the chain stays until the job is finalized.")
  var autoFinalize: String?
  @Option(help: "yes, or no: the job stays in the lists until it is dismissed.")
  var autoDismiss: String?

  func run() throws {
    let target = try place.resolve()
    let device = try target.singleDevice()
    let words = [
      ("base", base), ("speed", speed), ("on-error", onError), ("backing-file", backingFile),
      ("id", id), ("auto-finalize", autoFinalize), ("auto-dismiss", autoDismiss),
    ].compactMap { key, value in value.map { "\(key)=" + ControlWord.quoted($0) } }
    try target.write(words.joined(separator: " "), to: "stream", of: device)
    if wait { try follow(device, of: target) }
  }

  /// Stays until the job has ended; its failure is the command's.
  private func follow(_ device: String, of target: ControlTarget) throws {
    let view = ProgressView()
    let last: JobProgress
    if view.isLive {
      while true {
        let job = JobProgress(device: device, text: try target.read("status", of: device))
        view.show([job.bar])
        if !job.isActive { break }
        Clock.wait(milliseconds: 250)
      }
      view.finish()
    } else {
      Terminal.write(try target.read("wait", of: device))
    }
    last = JobProgress(device: device, text: try target.read("status", of: device))
    switch last["state"] {
    case "failed": throw CommandFailure("\(device): \(last["error"] ?? "the job failed")")
    case "cancelled": throw CommandFailure("\(device): the job was cancelled")
    default: break
    }
  }
}
