internal import Chain

/// A verb that is written to a control file of the whole mount.
package enum MountVerb: String, Sendable, CaseIterable {
  /// Takes a live snapshot of several devices at one moment.
  case snapshot
  /// Sets the limit that all streams share.
  case speed

  /// How it is used, in one line without a newline.
  package var usage: String {
    switch self {
    case .snapshot: "DEVICE=PATH... [format=qcow2] [mode=absolute-paths|existing]"
    case .speed: "SIZE"
    }
  }
}

/// A write to a control file of the whole mount, understood.
enum MountCommand: Equatable {
  case snapshot(paths: [String: String], format: String, mode: SnapshotMode)
  case speed(UInt64)

  init(_ verb: MountVerb, bytes: [UInt8]) throws(ControlError) {
    switch verb {
    case .snapshot: self = try Self.snapshot(CommandText(bytes: bytes, keys: .devices))
    case .speed: self = .speed(try ControlCommand.speed(CommandText(bytes: bytes)))
    }
  }

  private static func snapshot(_ text: CommandText) throws(ControlError) -> MountCommand {
    if let bare = text.bare { throw .invalid("\(bare) names no device: write DEVICE=PATH") }
    var paths = text.values
    let mode = try ControlCommand.mode(option("mode", of: &paths))
    let format = option("format", of: &paths) ?? "qcow2"
    if paths.isEmpty { throw .invalid("snapshot needs a device and a path, as vda=/p/new.qcow2") }
    return .snapshot(paths: paths, format: format, mode: mode)
  }

  /// The value of an option. A device may have the same name, and then it has a path: that begins
  /// with a slash, which no value of an option does.
  private static func option(_ key: String, of paths: inout [String: String]) -> String? {
    guard let value = paths[key], !value.hasPrefix("/") else { return nil }
    paths[key] = nil
    return value
  }
}
