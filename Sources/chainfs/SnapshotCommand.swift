internal import ArgumentParser

// One device's snapshot has a path; several devices' has DEVICE=PATH for each. A path may have an equals
// sign too, so where the command names a device, its word is a path whatever it looks like.

struct Snapshot: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Takes a live snapshot: new images over the active ones.",
    discussion: """
      MOUNTPOINT/DEVICE takes the PATH of the new image, and so does a MOUNTPOINT with one device. \
      MOUNTPOINT with DEVICE=PATH for each of several devices takes all at one moment, or none.
      """)

  @OptionGroup var place: TargetArgument
  @Argument(help: "PATH, the file of the new active image; or DEVICE=PATH for several devices.")
  var paths: [String]
  @Option(help: "The new image's format.")
  var format: String?
  @Option(help: "absolute-paths makes the file, existing takes one that is there.")
  var mode: String?

  func run() throws {
    let target = try place.resolve()
    let known = try target.devices
    let pairs = target.device == nil ? paths.compactMap(Self.pair) : []
    // A single word that names no device there is a file beside us with an equals sign in its name.
    if paths.count == 1, !pairs.contains(where: { known.contains($0.device) }) {
      let words = [ControlWord.quoted(try AbsolutePath.of(paths[0]))] + options
      return try target.write(
        words.joined(separator: " "), to: "snapshot", of: target.singleDevice())
    }
    guard pairs.count == paths.count else {
      throw CommandFailure(
        "a device has one new image; for several devices write \(target.mountpoint) DEVICE=PATH...")
    }
    try takeAll(pairs, of: target, known: known)
  }

  /// One snapshot of all these devices.
  private func takeAll(
    _ pairs: [(device: String, path: String)], of target: ControlTarget, known: [String]
  ) throws {
    for pair in pairs where !known.contains(pair.device) {
      throw CommandFailure(
        "\(target.mountpoint): no device named \(pair.device)"
          + " (have \(known.joined(separator: ", ")))")
    }
    let words = try pairs.map { pair in
      "\(pair.device)=" + ControlWord.quoted(try AbsolutePath.of(pair.path))
    }
    try target.write(
      (words + options).joined(separator: " "), to: "snapshot", concerning: pairs.map(\.device))
  }

  private var options: [String] {
    [("format", format), ("mode", mode)].compactMap { key, value in
      value.map { "\(key)=" + ControlWord.quoted($0) }
    }
  }

  /// The parts of `DEVICE=PATH`; nil where the word cannot be that.
  private static func pair(_ word: String) -> (device: String, path: String)? {
    guard let separator = word.firstIndex(of: "=") else { return nil }
    let device = String(word[..<separator])
    let path = String(word[word.index(after: separator)...])
    return device.isEmpty || device.contains("/") || path.isEmpty ? nil : (device, path)
  }
}
