internal import ArgumentParser
internal import Chain
internal import Filesystem
internal import Glibc
internal import HostSystem
internal import Logging
internal import QMP

struct Mount: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Mounts images, each as one flat file; returns when the mount is usable.",
    usage: "chainfs mount [-f] [-o OPTIONS] DEVICE=IMAGE... MOUNTPOINT")

  @Flag(name: .shortAndLong, help: "Stay in the foreground.")
  var foreground = false
  @Option(
    name: .customShort("o"),
    help: ArgumentHelp("Options, separated by commas; see mount.chainfs(8).", valueName: "OPTIONS"))
  var options: [String] = []
  @Argument(
    help: ArgumentHelp(
      "DEVICE=IMAGE for each device, then the mount point.", valueName: "DEVICE=IMAGE"))
  var words: [String]

  func validate() throws {
    guard words.count >= 2, let last = words.last else {
      throw ValidationError("give at least one DEVICE=IMAGE and the mount point")
    }
    if DeviceArgument(argument: last) != nil && !Files.isDirectory(last) {
      throw ValidationError("'\(last)' is a device; the mount point comes last")
    }
    for word in words.dropLast() where DeviceArgument(argument: word) == nil {
      throw ValidationError("'\(word)' is not DEVICE=IMAGE")
    }
  }

  func run() throws {
    let options = try MountOptions(parsing: options)
    var devices: [DeviceArgument] = []
    for word in words.dropLast() {
      guard var device = DeviceArgument(argument: word) else { continue }
      try device.validate()
      guard !devices.contains(where: { $0.name == device.name }) else {
        throw CommandFailure("two devices are named \(device.name); give each a name of its own")
      }
      device.path = try AbsolutePath.of(device.path)
      devices.append(device)
    }
    let mountpoint = try AbsolutePath.of(words.last ?? "")
    let configuration = try options.configuration(devices: devices, mountpoint: mountpoint)

    if foreground {
      MessageLog.start(options.logPath == nil ? .standardError : .file)
      if let path = options.logPath { try Processes.redirectStandardError(to: path) }
      try Self.serve(configuration, ChainFilesystem.prepare(configuration)) {}
    } else {
      let log = options.logPath
      try Processes.startDaemon {
        ChainFilesystem.prepare(configuration)
      } _: { signal, memory in
        do {
          if let path = log { try Processes.redirectStandardError(to: path) }
        } catch {
          signal.send("\(error)")
          return 1
        }
        MessageLog.start(log == nil ? .system : .file)
        do {
          try Self.serve(configuration, memory) {
            // The log is the only way to hear of a failure here, and the mount is up.
            do {
              try Processes.detachStandardStreams(log: log)
            } catch {
              Logger(label: "chainfs").warning("\(error)")
            }
            signal.send(Processes.readyText)
          }
          return 0
        } catch {
          Logger(label: "chainfs").error("\(error)")
          signal.send("\(error)")
          return 1
        }
      }
    }
  }

  /// Serves until the filesystem is unmounted; `ready` is called when it can be used.
  private static func serve(
    _ configuration: MountConfiguration, _ memory: ServingMemory, ready: () -> Void
  ) throws {
    signal(SIGPIPE, SIG_IGN)
    // Here, so that a path that cannot be had is told before anything is opened.
    let service = try configuration.socketPath.map { try QMPService(path: $0) }
    try ChainFilesystem.mount(
      configuration, memory: memory,
      monitor: { line, control in MonitorRunner(control: control).text(of: line) },
      service: service, ready: ready)
  }
}
