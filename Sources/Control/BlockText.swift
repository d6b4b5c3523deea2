internal import Chain
internal import Jobs

/// Disks and their layers as text.
enum BlockText {
  /// What `info block` says of a disk, or of a layer and what is below it.
  static func info(
    device: String, layers: ArraySlice<LayerDescription>, isReadOnly: Bool,
    detectZeroes: DeviceConfiguration.DetectZeroes, ioStatus: JobStatus.IOStatus
  ) -> String {
    guard let active = layers.first else { return "\(device): [not inserted]\n" }
    var text =
      "\(device): \(StatusText.oneLine(active.path)) (\(active.format)"
      + (isReadOnly ? ", read-only" : "") + (active.isEncrypted ? ", encrypted" : "") + ")\n"
    func add(_ key: String, _ value: String) {
      let label = key + ":"
      text += "    " + label + String(repeating: " ", count: 18 - label.count) + value + "\n"
    }
    if ioStatus != .ok { add("I/O status", ioStatus.rawValue) }
    add("Cache mode", "writeback")
    if let below = layers.dropFirst().first {
      let backing = StatusText.oneLine(below.path)
      add("Backing file", "\(backing) (chain depth: \(layers.count - 1))")
    }
    switch detectZeroes {
    case .off: break
    case .on: add("Detect zeroes", "on")
    case .unmap: add("Detect zeroes", "unmap")
    }
    return text
  }

  /// The `chain` file: one layer a line, active image first.
  static func chain(_ layers: [LayerDescription]) -> String {
    layers.map { layer in
      "\(layer.index)\t\(layer.format)\t\(layer.virtualSize)\t\(layer.allocatedBytes)\t"
        + "\(StatusText.oneLine(layer.path))\n"
    }.joined()
  }

  /// The `plan` file.
  static func plan(_ estimate: StreamEstimate) -> String {
    """
    copy: \(estimate.copy)
    zero: \(estimate.zero)
    present: \(estimate.present)
    needed: \(estimate.needed)
    free: \(estimate.free)
    fits: \(estimate.fits ? "yes" : "no")

    """
  }
}
