internal import ArgumentParser
internal import BlockIO
internal import Chain
internal import ImageDriver

/// `IMAGE` of the commands that look at an image without mounting it.
struct ImageArgument: ParsableArguments {
  @Argument(help: "The path of a qcow2 image, or raw:PATH.")
  var image: String
  @Flag(help: "Print JSON, with qemu-img's names.")
  var json = false

  /// The path without `raw:`.
  var path: String { isRaw ? String(image.dropFirst("raw:".count)) : image }

  /// True for `raw:PATH`.
  var isRaw: Bool { image.hasPrefix("raw:") }

  /// The image as the chain module names it.
  func location() throws -> ImageLocation {
    isRaw ? .raw(path: try AbsolutePath.of(path)) : .qcow2(path: try AbsolutePath.of(path))
  }
}

/// Another program may have the image open for writing; looking at it then may show half a change.
struct SharingOption: ParsableArguments {
  @Flag(name: [.customShort("U"), .long], help: "Look at the image also while it is in use.")
  var forceShare = false
}

/// Opening images for a look.
enum ImageFile {
  /// Opens a file read-only, with QEMU's locks unless told otherwise.
  static func open(_ path: String, isLocked: Bool) throws -> any BlockStorage {
    try HostImageFiles().open(path, role: .backing, isReadOnly: true, isLocked: isLocked)
  }

  /// Describes an image; what is not qcow2 has to be called raw.
  static func describe(
    _ path: String, isRaw: Bool, isLocked: Bool
  ) throws -> ImageDescription {
    let storage = try open(path, isLocked: isLocked)
    defer { storage.close() }
    let description = try ImageDescription(of: storage)
    if !isRaw, let foreign = try ForeignFormat.recognized(in: storage) {
      throw CommandFailure("\(path) is \(foreign.advice(for: path))")
    }
    guard isRaw == (description.qcow2 == nil) else {
      throw CommandFailure(
        isRaw
          ? "\(path) is a qcow2 image; leave raw: away"
          : "\(path) is not a qcow2 image; write raw:\(path) if it is a raw one")
    }
    return description
  }
}
