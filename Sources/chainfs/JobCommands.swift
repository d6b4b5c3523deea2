internal import ArgumentParser

// The verbs that are one control write each.

struct Cancel: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Cancels the job of a device; what it copied stays.")

  @OptionGroup var place: TargetArgument

  func run() throws { try place.command("cancel") }
}

struct Pause: ParsableCommand {
  static let configuration = CommandConfiguration(abstract: "Holds the job of a device.")

  @OptionGroup var place: TargetArgument

  func run() throws { try place.command("pause") }
}

struct Resume: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Lets a held job go on, also after it stopped on an error.")

  @OptionGroup var place: TargetArgument

  func run() throws { try place.command("resume") }
}

struct Finalize: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Lets the pending job of a device change the chain.")

  @OptionGroup var place: TargetArgument

  func run() throws { try place.command("finalize") }
}

struct Dismiss: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Takes the jobs of a device that are over off the lists.")

  @OptionGroup var place: TargetArgument
  @Option(help: "The one job that goes; else all of the device.")
  var id: String?

  func run() throws {
    try place.command("dismiss", id.map { "id=" + ControlWord.quoted($0) } ?? "")
  }
}

struct Stop: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Holds the reads and writes of a device; its job goes on.")

  @OptionGroup var place: TargetArgument

  func run() throws { try place.command("stop") }
}

struct Cont: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Lets the reads and writes of a device go on.")

  @OptionGroup var place: TargetArgument

  func run() throws { try place.command("cont") }
}

struct Speed: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Shows or sets a limit in bytes a second: of a device's job, or of all together.",
    discussion: """
      MOUNTPOINT/DEVICE is the limit of the job that runs there; MOUNTPOINT is the limit that all jobs \
      of the mount share, also those to come.
      """)

  @OptionGroup var place: TargetArgument
  @Argument(help: "The new limit (K, M, G, T for powers of 1024; 0 for none).")
  var limit: String?

  func run() throws {
    let target = try place.resolve()
    let word = limit.map(ControlWord.quoted)
    switch (target.device, word) {
    case (let device?, let word?): try target.write(word, to: "speed", of: device)
    case (let device?, nil): Terminal.write(try target.read("speed", of: device))
    case (nil, let word?): try target.write(word, to: "speed", concerning: target.devices)
    case (nil, nil): Terminal.write(try target.read("speed"))
    }
  }
}

/// Words of a control write.
enum ControlWord {
  /// The word in single quotes where it needs them, so that blanks in a path stay in one word.
  static func quoted(_ word: String) -> String {
    let isPlain = word.utf8.allSatisfy { byte in
      switch byte {
      case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
        UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "/"), UInt8(ascii: "."),
        UInt8(ascii: "_"), UInt8(ascii: "-"), UInt8(ascii: "+"), UInt8(ascii: ","):
        true
      default: false
      }
    }
    if isPlain && !word.isEmpty { return word }
    return "'"
      + word.split(separator: "'", omittingEmptySubsequences: false).joined(
        separator: "'\\''") + "'"
  }
}
