import TestSupport

@testable import Chain

/// What a header says of the image below. The first byte of the input chooses a format, the rest is the
/// name.
enum NamesTarget {
  static func run(_ bytes: [UInt8]) throws {
    var input = FuzzInput(bytes)
    let format = [nil, "raw", "qcow2", "file", "", "vmdk"][Int(input.byte()) % 6]
    guard let text = String(validating: input.rest.prefix(1023), as: UTF8.self) else { return }
    let overlay = "/images/top.qcow2"
    let name = try attempt { try BackingName(name: text, format: format, overlay: overlay) }
    guard let name else { return }
    try claim(!name.path.isEmpty, "a name without a path")
    for window in name.windows {
      try claim(window.offset <= UInt64(Int64.max), "a window that no file has")
    }
    _ = PlacePath.fileName(of: name.path)
    let path = PlacePath.resolve(name.path, from: "/images")
    try claim(PlacePath.isAbsolute(path), "\(path) is not absolute")
    // The way back leads to the same image, from anywhere.
    let spelled = name.spelled(path: path)
    let again = try BackingName(
      name: spelled, format: name.format?.rawValue, overlay: overlay)
    try claim(again.path == path, "\(spelled) leads to \(again.path)")
    try claim(again.format == name.format, "\(spelled) has another format")
    try claim(again.showsTheSame(as: name), "\(spelled) shows something else")
    let relative = PlacePath.relative(path, to: "/images/more")
    try claim(BackingName.scheme(of: relative) == nil, "\(relative) has a protocol")
  }
}
