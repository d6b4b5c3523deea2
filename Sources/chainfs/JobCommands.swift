internal import ArgumentParser

// The verbs that are one control write each.

struct Cancel: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Cancels the job of a device; what it copied stays.")

  @OptionGroup var place: TargetArgument

  func run() throws {
    let target = try place.resolve()
    try target.write("", to: "cancel", of: target.singleDevice())
  }
}

struct Pause: ParsableCommand {
  static let configuration = CommandConfiguration(abstract: "Holds the job of a device.")

  @OptionGroup var place: TargetArgument

  func run() throws {
    let target = try place.resolve()
    try target.write("", to: "pause", of: target.singleDevice())
  }
}

struct Resume: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Lets a held job go on, also after it stopped on an error.")

  @OptionGroup var place: TargetArgument

  func run() throws {
    let target = try place.resolve()
    try target.write("", to: "resume", of: target.singleDevice())
  }
}

struct Speed: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Shows or sets the limit of a running job, in bytes a second.")

  @OptionGroup var place: TargetArgument
  @Argument(help: "The new limit (K, M, G, T for powers of 1024; 0 for none).")
  var limit: String?

  func run() throws {
    let target = try place.resolve()
    let device = try target.singleDevice()
    if let limit {
      try target.write(ControlWord.quoted(limit), to: "speed", of: device)
    } else {
      Terminal.write(try target.read("speed", of: device))
    }
  }
}

struct Snapshot: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Takes a live snapshot: a new image over the active one.")

  @OptionGroup var place: TargetArgument
  @Argument(help: "The file of the new active image.")
  var path: String
  @Option(help: "The new image's format.")
  var format: String?
  @Option(help: "absolute-paths makes the file, existing takes one that is there.")
  var mode: String?

  func run() throws {
    let target = try place.resolve()
    var words = [ControlWord.quoted(try AbsolutePath.of(path))]
    if let format { words.append("format=" + ControlWord.quoted(format)) }
    if let mode { words.append("mode=" + ControlWord.quoted(mode)) }
    try target.write(words.joined(separator: " "), to: "snapshot", of: target.singleDevice())
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
