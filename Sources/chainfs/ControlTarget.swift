internal import ArgumentParser

// Where a command like `chainfs stream /mnt/vm/vda` goes. The commands hold no logic of their own:
// they write and read the control files, so that a rule stands in one place and a shell script
// has the same powers as the program.

/// A mounted filesystem, and perhaps one device in it, named as MOUNTPOINT or MOUNTPOINT/DEVICE.
struct ControlTarget {
  let mountpoint: String
  let device: String?

  /// Finds out what the path names; fails if it is no mounted chainfs.
  init(path: String) throws {
    var path = path
    while path.count > 1, path.hasSuffix("/") { path.removeLast() }
    if Files.isDirectory(path + "/.jobs") {
      self.mountpoint = path
      self.device = nil
      return
    }
    let parent: String
    let name: String
    if let slash = path.lastIndex(of: "/") {
      parent = slash == path.startIndex ? "/" : String(path[..<slash])
      name = String(path[path.index(after: slash)...])
    } else {
      parent = "."
      name = path
    }
    guard Files.isDirectory(parent + "/.jobs") else {
      throw CommandFailure("\(path): neither a mounted chainfs nor a device of one")
    }
    guard Files.isDirectory("\(parent)/.jobs/\(name)") else {
      throw CommandFailure(
        "\(parent): no device named \(name) (have \(Self.deviceList(of: parent)))")
    }
    self.mountpoint = parent
    self.device = name
  }

  /// The devices it stands for: the named one, or all of the mount.
  var devices: [String] {
    get throws {
      if let device { return [device] }
      return try Self.devices(of: mountpoint)
    }
  }

  /// The one device that a verb acts on: the named one, or the only one of the mount.
  func singleDevice() throws -> String {
    if let device { return device }
    let all = try Self.devices(of: mountpoint)
    guard all.count == 1 else {
      throw CommandFailure(
        "\(mountpoint) has several devices (\(all.joined(separator: ", ")));"
          + " name one, as in \(mountpoint)/\(all.first ?? "vda")")
    }
    return all[0]
  }

  /// The text of a control file of a device.
  func read(_ file: String, of device: String) throws -> String {
    try Files.text(of: "\(mountpoint)/.jobs/\(device)/\(file)")
  }

  /// The text of a control file of the whole mount.
  func read(_ file: String) throws -> String {
    try Files.text(of: "\(mountpoint)/.jobs/\(file)")
  }

  /// Writes one command; a refusal is thrown with the sentence that the filesystem gives for it.
  func write(_ text: String, to file: String, of device: String) throws {
    try write(text, to: "\(device)/\(file)", concerning: [device])
  }

  /// Writes one command to a file in `.jobs`; the sentence of a refusal stands with the devices that
  /// the command is about.
  func write(_ text: String, to file: String, concerning devices: [String]) throws {
    do {
      try Files.writeOnce(text + "\n", to: "\(mountpoint)/.jobs/\(file)")
    } catch {
      for device in devices {
        let sentence = try read("error", of: device)
        guard sentence.isEmpty else {
          throw CommandFailure(String(sentence.prefix { $0 != "\n" }))
        }
      }
      throw error
    }
  }

  private static func devices(of mountpoint: String) throws -> [String] {
    try Files.names(in: mountpoint + "/.jobs")
      .filter { Files.isDirectory("\(mountpoint)/.jobs/\($0)") }
      .sorted()
  }

  private static func deviceList(of mountpoint: String) -> String {
    do {
      return try devices(of: mountpoint).joined(separator: ", ")
    } catch {
      return "none that can be read: \(error)"
    }
  }
}

/// `MOUNTPOINT` or `MOUNTPOINT/DEVICE`, as all job commands take it.
struct TargetArgument: ParsableArguments {
  @Argument(help: "The mount, or one device of it.")
  var target: String

  /// The mount that the argument names.
  func resolve() throws -> ControlTarget {
    try ControlTarget(path: target)
  }

  /// Writes one command to a control file of the one device that the argument stands for.
  func command(_ file: String, _ text: String = "") throws {
    let target = try resolve()
    try target.write(text, to: file, of: target.singleDevice())
  }
}
