internal import Chain

/// An image as `qemu-img info` tells of it, which is how HMP does too.
enum ImageText {
  /// A layer, where `backingPath` is what lies below it.
  static func image(
    _ layer: LayerDescription, _ header: LayerHeader, backingPath: String?
  ) -> String {
    let size = SizeText.threeDigits(header.virtualSize)
    var text = """
      image: \(StatusText.oneLine(layer.path))
      file format: \(layer.format)
      virtual size: \(size) (\(header.virtualSize) bytes)
      disk size: \(SizeText.threeDigits(layer.allocatedBytes))

      """
    if header.isEncrypted { text += "encrypted: yes\n" }
    if let size = header.clusterSize { text += "cluster_size: \(size)\n" }
    if header.isDirty { text += "cleanly shut down: no\n" }
    if let name = header.backingName {
      text += "backing file: \(StatusText.oneLine(name))"
      if let backingPath, backingPath != name {
        text += " (actual path: \(StatusText.oneLine(backingPath)))"
      }
      text += "\n"
      if let format = header.backingFormat { text += "backing file format: \(format)\n" }
    }
    text += SnapshotText.table(of: header.snapshots)
    if !header.specific.isEmpty {
      text += "Format specific information:\n"
      append(.fields(header.specific), indent: 4, to: &text)
    }
    return text
  }

  private static func append(_ value: LayerHeader.Value, indent: Int, to text: inout String) {
    let space = String(repeating: " ", count: indent)
    func add(_ label: String, _ value: LayerHeader.Value) {
      if case .text(let line) = value {
        text += "\(space)\(label): \(StatusText.oneLine(line))\n"
      } else {
        text += "\(space)\(label):\n"
        append(value, indent: indent + 4, to: &text)
      }
    }
    switch value {
    case .text: break
    case .list(let values):
      for (index, value) in values.enumerated() { add("[\(index)]", value) }
    case .fields(let fields):
      for field in fields { add(field.name, field.value) }
    }
  }
}
