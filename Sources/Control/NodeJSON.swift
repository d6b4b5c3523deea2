internal import Chain

/// Layers as QMP tells of them.
package enum NodeJSON {
  /// What is told of the images below one.
  package enum Images: Sendable {
    /// Nothing.
    case flat
    /// Each stands in the one above it.
    case nested
  }

  /// How deep images stand in one another at most: readers of JSON give up at some depth, and a chain
  /// may be deeper.
  static let deepest = 100

  /// A BlockDeviceInfo of QMP.
  static func node(
    _ index: Int, of layers: [LayerDescription], name: String, isReadOnly: Bool, disk: Disk,
    _ images: Images
  ) -> JSONText {
    let layer = layers[index]
    let isActive = index == 0
    let detectZeroes = isActive ? disk.configuration.detectZeroes : .off
    var members: [JSONText.Member] = [
      .init("file", .string(layer.path)), .init("node-name", .string(name)),
      .init("ro", .bool(isReadOnly)), .init("drv", .string(layer.format)),
      .init("encrypted", .bool(layer.isEncrypted)),
      .init("backing_file_depth", .number(UInt64(layers.count - 1 - index))),
      .init("detect_zeroes", .string(detectZeroes.rawValue)),
      .init("active", .bool(true)),
      .init("image", image(index, of: layers, disk: disk, images, depth: 0)),
      .init(
        "cache",
        .object([
          .init("writeback", .bool(true)), .init("direct", .bool(false)),
          .init("no-flush", .bool(false)),
        ])),
    ]
    if index + 1 < layers.count {
      members.append(.init("backing_file", .string(layers[index + 1].path)))
    }
    // There is no such limit here, which QMP tells as zeroes.
    for limit in ["bps", "bps_rd", "bps_wr", "iops", "iops_rd", "iops_wr", "write_threshold"] {
      members.append(.init(limit, .number(0)))
    }
    return .object(members)
  }

  private static func image(
    _ index: Int, of layers: [LayerDescription], disk: Disk, _ images: Images, depth: Int
  ) -> JSONText {
    let layer = layers[index]
    var members: [JSONText.Member] = [
      .init("filename", .string(layer.path)), .init("format", .string(layer.format)),
      .init("virtual-size", .number(layer.virtualSize)),
      .init("actual-size", .number(layer.allocatedBytes)),
    ]
    if layer.isEncrypted { members.append(.init("encrypted", .bool(true))) }
    if index == 0, layer.format == "qcow2" {
      members.append(.init("cluster-size", .number(UInt64(disk.clusterSize))))
    }
    if index + 1 < layers.count {
      let next = layers[index + 1]
      if let string = layer.backingString {
        members.append(.init("backing-filename", .string(string)))
      }
      members.append(.init("full-backing-filename", .string(next.path)))
      members.append(.init("backing-filename-format", .string(next.format)))
      if images == .nested, depth < deepest {
        let below = image(index + 1, of: layers, disk: disk, images, depth: depth + 1)
        members.append(.init("backing-image", below))
      }
    }
    return .object(members)
  }
}
