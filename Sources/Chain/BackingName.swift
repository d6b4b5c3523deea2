internal import ImageDriver

// What an overlay's header may say about the image below it.
//
// The name is written by whoever made the overlay, and may be hostile: it decides which file of the
// host is opened, and how. So it is taken apart here into a small value before anything is opened,
// and whatever is not understood completely is refused with its own name in the sentence:
//
//     base.qcow2  ../base.raw  /images/base     a path; relative ones resolve from the overlay
//     file:/images/base                         the same, with QEMU's prefix for plain files
//     json:{"driver":"qcow2","file":{...}}      QEMU's options, nested or dotted, raw and qcow2 only;
//                                               raw may show a window of its file
//     nbd://...  rbd:...  anything:...          refused: only files are opened
//
// As in QEMU a name has a protocol if a colon comes before its first slash; `./a:b` is a file.

/// A backing image as an overlay names it, taken apart and checked, but not opened.
struct BackingName: Equatable, Sendable {
  /// How the bytes of the file are to be understood.
  enum Format: String, Equatable, Sendable {
    case qcow2
    case raw
  }

  /// A part of a file, as QEMU's raw driver shows it with `offset` and `size`.
  struct Window: Hashable, Sendable {
    /// Where it starts.
    var offset: UInt64
    /// How long it is; to the end of the file if nothing is said.
    var size: UInt64?
  }

  /// What is below the named image.
  indirect enum Below: Equatable, Sendable {
    /// What its own header names.
    case asItsHeaderSays
    /// Nothing, whatever its header names (`"backing": null`).
    case nothing
    /// Another image, named in the same string.
    case image(BackingName)
  }

  /// The file, absolute or relative to the directory of the overlay.
  var path: String
  /// The format that was named, if one was.
  var format: Format?
  /// Which part of the file the image is: each a part of the one before, none for the whole file.
  var windows: [Window] = []
  /// Where the chain goes on.
  var below = Below.asItsHeaderSays

  /// Whether another name shows the same if both lead to the same file.
  func showsTheSame(as other: BackingName) -> Bool {
    windows == other.windows && below == other.below
  }
}

extension BackingName {
  /// Takes apart the name and the format that an overlay's header holds.
  ///
  /// - Parameter overlay: the path of the overlay, for the sentence of a refusal.
  init(name: String, format: String?, overlay: String) throws(ChainError) {
    let scheme = Self.scheme(of: name)
    switch scheme {
    case nil:
      self.init(path: name, format: try Self.format(format, of: name, overlay: overlay))
    case "file":
      let path = String(name.dropFirst("file:".count))
      self.init(path: path, format: try Self.format(format, of: path, overlay: overlay))
    case "json":
      let named = try Self.format(format, of: name, overlay: overlay)
      let text = String(name.dropFirst("json:".count))
      self = try BackingOptions(json: text, name: name, overlay: overlay).backing(format: named)
    case .some(let scheme):
      throw .backingRefused(
        name: name, overlay: overlay,
        reason: "\(scheme): is not supported, only files can be backing images")
    }
    if path.isEmpty {
      throw .backingRefused(name: name, overlay: overlay, reason: "it holds no file name")
    }
  }

  /// What stands before the first colon, if no slash comes before that.
  static func scheme(of name: String) -> String? {
    guard let colon = name.firstIndex(of: ":") else { return nil }
    let scheme = name[..<colon]
    return scheme.contains("/") ? nil : String(scheme)
  }

  /// The format with this name; QEMU writes `file` for an image that it used without any format.
  ///
  /// - Parameter path: the file, for the sentence of a refusal.
  static func format(
    _ format: String?, of path: String, overlay: String
  ) throws(ChainError) -> Format? {
    switch format {
    case nil, "": nil
    case "qcow2": .qcow2
    case "raw", "file": .raw
    case .some(let other):
      if let foreign = ForeignFormat(rawValue: other) {
        throw .backingForeign(path: path, overlay: overlay, foreign)
      }
      throw .backingRefused(
        name: path, overlay: overlay, reason: "format \(other) is not supported, only qcow2 and raw"
      )
    }
  }
}
