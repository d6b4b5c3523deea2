internal import Chain
internal import HostSystem
internal import Jobs

// QMP names layers by nodes. A layer has the name that its snapshot gave it, or one of its own: the
// device and the number of the layer behind a `#`, which no device and no given name begins with.
// Given names last as long as the mount, as they do in QEMU.
//
// A name is looked for among the layers that are there, and given when the snapshot has made its layer. Two
// snapshots of different devices could both find it free; so a name is reserved before it is looked for,
// and only then is what was found still true when it is given.

/// The names of layers that snapshots gave.
final class NodeNames: Sendable {
  private struct Key: Hashable {
    var device: String
    var layer: LayerID
  }

  private struct State {
    var given: [Key: String] = [:]
    /// Names that snapshots are about to give.
    var reserved: Set<String> = []
  }

  private let state = Monitor(State())

  /// The name of a layer.
  func name(of layer: LayerID, device: String) -> String {
    state.withLock { $0.given[Key(device: device, layer: layer)] }
      ?? "#\(device).\(layer.rawValue)"
  }

  /// Keeps a name from all others until it is released; false if somebody keeps it already.
  func reserve(_ name: String) -> Bool { state.withLock { $0.reserved.insert(name).inserted } }

  /// Gives back what was reserved. A name that was given to a layer meanwhile is that layer's.
  func release(_ names: [String]) { state.withLock { $0.reserved.subtract(names) } }

  /// Names a layer.
  func set(_ name: String, of layer: LayerID, device: String) {
    state.withLock { $0.given[Key(device: device, layer: layer)] = name }
  }

  /// QEMU's rule for what may be given, which is that of job ids, in 31 bytes.
  static func isWellFormed(_ name: String) -> Bool {
    name.utf8.count < 32 && JobIDs.isWellFormed(name)
  }
}
