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
  var size: SizeArgument?
  @Option(name: [.customShort("b"), .long], help: "Make an overlay of this image.")
  var backing: String?
  @Option(name: [.customShort("F"), .long], help: "The format of the backing file.")
  var backingFormat: String?
  @Option(help: "512 to 2M, a power of two.")
  var clusterSize: SizeArgument?
  @Option(help: "1 to 64, a power of two.")
  var refcountBits: Int?
  @Option(name: .customLong("version"), help: "2 or 3.")
  var formatVersion: Int?

  func validate() throws {
    if size == nil && backing == nil {
      throw ValidationError("give the size of the disk, or --backing")
    }
    if argument.isRaw && (backing != nil || size == nil) {
      throw ValidationError("a raw image has a size and no backing file")
    }
    if let clusterSize,
      clusterSize.bytes.nonzeroBitCount != 1
        || !(512...2 << 20).contains(clusterSize.bytes)
    {
      throw ValidationError("--cluster-size is a power of two from 512 to 2M")
    }
    if let refcountBits, refcountBits.nonzeroBitCount != 1 || !(1...64).contains(refcountBits) {
      throw ValidationError("--refcount-bits is a power of two from 1 to 64")
    }
    if let formatVersion, formatVersion != 2 && formatVersion != 3 {
      throw ValidationError("--version is 2 or 3")
    }
  }

  func run() throws {
    let path = argument.path
    let below = try backing.map { try describeBacking($0, of: path) }
    guard let bytes = size?.bytes ?? below?.size else {
      throw CommandFailure("\(path): the size is missing")
    }
    let storage = try HostFile.create(path, mode: 0o644)
    do {
      if argument.isRaw {
        try storage.truncate(to: bytes)
        try storage.flush()
      } else {
        try ImageBuilder.create(on: storage, options(bytes, below?.reference))
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

  private func options(_ size: UInt64, _ backing: BackingReference?) -> ImageBuilder.Options {
    var options = ImageBuilder.Options(virtualSize: size, backing: backing)
    if let clusterSize { options.clusterSize = Int(clusterSize.bytes) }
    if let formatVersion { options.version = formatVersion }
    if let refcountBits { options.refcountBits = refcountBits }
    return options
  }

  /// Looks at the backing file, which is named as seen from the new image's directory.
  private func describeBacking(
    _ name: String, of path: String
  ) throws -> (reference: BackingReference, size: UInt64) {
    let directory = path.lastIndex(of: "/").map { path[...$0] } ?? ""
    let place = name.hasPrefix("/") ? name : directory + name
    let storage = try ImageFile.open(place, isLocked: true)
    defer { storage.close() }
    let image = try ImageDescription(of: storage)
    let format: String
    switch (backingFormat, image.qcow2) {
    case ("raw", _):
      return (BackingReference(name: name, format: "raw"), try storage.size())
    case ("qcow2", .some), (nil, .some): format = "qcow2"
    case (nil, nil):
      throw CommandFailure("\(place) is not a qcow2 image; say --backing-format raw if it is raw")
    case ("qcow2", nil): throw CommandFailure("\(place) is not a qcow2 image")
    case (let other?, _):
      throw CommandFailure("--backing-format takes qcow2 or raw, not '\(other)'")
    }
    return (BackingReference(name: name, format: format), image.virtualSize)
  }
}
