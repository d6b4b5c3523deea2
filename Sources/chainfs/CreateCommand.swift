internal import ArgumentParser
internal import BlockIO
internal import Chain
internal import Control
internal import FoundationEssentials
internal import ImageDriver

struct Create: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Makes a new image, or an overlay of one.")

  @OptionGroup var argument: ImageArgument
  @Argument(help: "The size (K, M, G, T for powers of 1024); of an overlay, its backing file's.")
  var size: String?
  @Option(name: [.customShort("b"), .long], help: "Make an overlay of this image.")
  var backing: String?
  @Option(name: [.customShort("F"), .long], help: "The format of the backing file.")
  var backingFormat: String?
  @Option(help: "512 to 2M, a power of two.")
  var clusterSize: String?
  @Option(help: "1 to 64, a power of two.")
  var refcountBits: String?
  @Option(name: .customLong("version"), help: "2 or 3.")
  var formatVersion: Int?
  @Option(
    name: [.customShort("o"), .long],
    help: "Options as qemu-img takes them, as in cluster_size=4k,extended_l2=on.")
  var options: [String] = []

  func validate() throws {
    do {
      let options = try allOptions()
      let size = try options.size(.size)
      let backing = options[.backingFile].map { BackingReference(name: $0, format: nil) }
      if size == nil && backing == nil {
        throw ValidationError("give the size of the disk, or --backing")
      }
      if argument.isRaw && (backing != nil || size == nil) {
        throw ValidationError("a raw image has a size and no backing file")
      }
      if let format = options[.backingFormat], format != "qcow2", format != "raw" {
        throw ValidationError("--backing-format takes qcow2 or raw, not '\(format)'")
      }
      _ = try options.image(virtualSize: size ?? 0, backing: backing)
    } catch let failure as CommandFailure {
      throw ValidationError(failure.description)
    }
  }

  func run() throws {
    let path = argument.path
    let options = try allOptions()
    let below = try options[.backingFile].map { name in
      try describeBacking(BackingReference(name: name, format: options[.backingFormat]), of: path)
    }
    guard let bytes = try options.size(.size) ?? below?.size else {
      throw CommandFailure("\(path): the size is missing")
    }
    let storage = try HostFile.create(path, mode: 0o644)
    do {
      if argument.isRaw {
        try storage.truncate(to: bytes)
        try storage.flush()
      } else {
        try ImageBuilder.create(
          on: storage, options.image(virtualSize: bytes, backing: below?.reference))
      }
    } catch {
      storage.close()
      // What was made of it is no image; the name was not there before.
      try FileManager.default.removeItem(atPath: path)
      throw error
    }
    let image = try ImageDescription(of: storage)
    storage.close()
    Terminal.write(
      argument.json
        ? Info.json(of: image).line + "\n"
        : "\(path): \(image.formatName), \(SizeText.forPeople(image.virtualSize))\n")
  }

  /// The words behind `-o` with the flags and arguments that say the same.
  private func allOptions() throws -> CreateOptions {
    var all = try CreateOptions(options)
    try all.set(.size, size)
    try all.set(.backingFile, backing)
    try all.set(.backingFormat, backingFormat)
    try all.set(.clusterSize, clusterSize)
    try all.set(.refcountBits, refcountBits)
    if let formatVersion, formatVersion != 2 && formatVersion != 3 {
      throw CommandFailure("--version is 2 or 3")
    }
    try all.set(.compat, formatVersion.map { "v\($0)" })
    return all
  }

  /// Looks at the backing file, which is named as seen from the new image's directory.
  private func describeBacking(
    _ reference: BackingReference, of path: String
  ) throws -> (reference: BackingReference, size: UInt64) {
    do {
      let found = try BackingFile.describe(reference, of: path)
      return (BackingReference(name: reference.name, format: found.format), found.virtualSize)
    } catch ChainError.notQcow2(let place) {
      throw CommandFailure(
        reference.format == nil
          ? "\(place) is not a qcow2 image; say --backing-format raw if it is raw"
          : "\(place) is not a qcow2 image")
    }
  }
}
