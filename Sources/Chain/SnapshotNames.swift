/// The internal snapshots of one layer as views name them: safe for a file system, each only once.
struct SnapshotNames: Sendable {
  /// The layer that keeps them.
  let layer: LayerID
  /// By their place in the layer's directory.
  private(set) var names: [String] = []
  /// The other way round.
  private(set) var places: [String: Int] = [:]

  /// Names snapshots in the order of their directory, which does not change.
  init(_ snapshots: [(id: String, name: String)], of layer: LayerID) {
    self.layer = layer
    // Where the search for a free number goes on, so that equal names take no time squared.
    var next: [String: Int] = [:]
    for (place, snapshot) in snapshots.enumerated() {
      let safe = ViewName.made(safe: snapshot.name.isEmpty ? snapshot.id : snapshot.name)
      var name = safe
      while places[name] != nil {
        let number = next[safe, default: 2]
        next[safe] = number + 1
        name = "\(safe)~\(number)"
      }
      names.append(name)
      places[name] = place
    }
  }
}
