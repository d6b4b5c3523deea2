internal import Chain
internal import HostSystem
internal import Jobs

// QMP names layers by nodes. A layer has the name that its snapshot gave it, or one of its own: the
// device and the number of the layer behind a `#`, which no device and no given name begins with.
// Given names last as long as the mount, as they do in QEMU.

/// The names of layers that snapshots gave.
final class NodeNames: Sendable {
  private struct Key: Hashable {
    var device: String
    var layer: LayerID
  }

  private let given = Monitor<[Key: String]>([:])

  /// The name of a layer.
  func name(of layer: LayerID, device: String) -> String {
    given.withLock { $0[Key(device: device, layer: layer)] } ?? "#\(device).\(layer.rawValue)"
  }

  /// Names a layer.
  func set(_ name: String, of layer: LayerID, device: String) {
    given.withLock { $0[Key(device: device, layer: layer)] = name }
  }

  /// QEMU's rule for what may be given, which is that of job ids, in 31 bytes.
  static func isWellFormed(_ name: String) -> Bool {
    name.utf8.count < 32 && JobIDs.isWellFormed(name)
  }
}
