internal import ArgumentParser
internal import Control

/// One `DEVICE=IMAGE` of the command line, the image's path made absolute.
///
/// The daemon leaves the directory it was started in, so a relative path has to be settled before.
/// Symlinks stay: a backing name resolves from the directory the image was opened by.
struct DeviceArgument: ExpressibleByArgument {
  /// How the image is to be read.
  enum ImageFormat {
    case qcow2
    case raw
  }

  var name: String
  var format: ImageFormat
  var path: String

  init?(argument: String) {
    guard let separator = argument.firstIndex(of: "=") else { return nil }
    let image = argument[argument.index(after: separator)...]
    name = String(argument[..<separator])
    format = image.hasPrefix("raw:") ? .raw : .qcow2
    path = String(format == .raw ? image.dropFirst("raw:".count) : image)
    if name.isEmpty || path.isEmpty { return nil }
  }

  /// What the mount table shows for it.
  var sourceText: String {
    "\(name)=\(format == .raw ? "raw:" : "")\(path)"
  }

  /// Refuses a name that no control directory could have, and images of a kind that is not read.
  func validate() throws {
    let isFirst = { (byte: UInt8) in
      byte == UInt8(ascii: "_") || (UInt8(ascii: "0")...UInt8(ascii: "9")).contains(byte)
        || (UInt8(ascii: "A")...UInt8(ascii: "Z")).contains(byte)
        || (UInt8(ascii: "a")...UInt8(ascii: "z")).contains(byte)
    }
    let bytes = Array(name.utf8)
    let isFormed =
      bytes.count <= 64 && isFirst(bytes[0])
      && bytes.allSatisfy {
        isFirst($0) || $0 == UInt8(ascii: ".") || $0 == UInt8(ascii: "-")
      }
    guard isFormed else {
      throw CommandFailure(
        "'\(name)' cannot be a device's name: a letter, digit or underscore, then up to 63"
          + " letters, digits, underscores, dots and hyphens")
    }
    let isTaken =
      MountFile(rawValue: name) != nil || MountVerb(rawValue: name) != nil
      || ["events", "monitor", "qmp"].contains(name)
    if isTaken {
      throw CommandFailure("'\(name)' cannot be a device's name: .jobs has a file of that name")
    }
    for scheme in ["nbd:", "nbd+unix:", "nbds:", "nbds+unix:"] where path.hasPrefix(scheme) {
      throw CommandFailure(
        "\(name): '\(path)' is an NBD address; this version opens images by their path only")
    }
  }
}
