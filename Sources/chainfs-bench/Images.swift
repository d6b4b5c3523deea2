import Foundation

/// The images of the rows. The bytes are random, so that nothing finds zeroes in them.
enum Images {
  /// One image, every cluster written; the raw file has the same bytes.
  static func allocated(_ plan: Plan, _ directory: String) throws -> ServedImage {
    try Tool.run(
      """
      head -c \(plan.diskSize)M /dev/urandom > flat.raw
      qemu-img convert -f raw -O qcow2 flat.raw top.qcow2
      """, in: directory)
    return ServedImage(image: "top.qcow2", raw: "flat.raw")
  }

  /// An empty overlay on a full image; made again, the full image stays.
  static func overlay(_ plan: Plan, _ directory: String) throws -> ServedImage {
    try Tool.run(
      """
      [ -e base.qcow2 ] || {
        head -c \(plan.diskSize)M /dev/urandom > flat.raw
        qemu-img convert -f raw -O qcow2 flat.raw base.qcow2; }
      rm -f top.qcow2
      qemu-img create -q -f qcow2 -b base.qcow2 -F qcow2 top.qcow2
      """, in: directory)
    return ServedImage(image: "top.qcow2", raw: "flat.raw")
  }

  /// An empty image and an empty raw file.
  static func blank(_ plan: Plan, _ directory: String) throws -> ServedImage {
    try Tool.run(
      """
      rm -f top.qcow2 flat.raw
      qemu-img create -q -f qcow2 top.qcow2 \(plan.diskSize)M
      truncate -s \(plan.diskSize)M flat.raw
      """, in: directory)
    return ServedImage(image: "top.qcow2", raw: "flat.raw")
  }

  /// A chain in which each cluster is in one layer, dealt out by a fixed shuffle.
  ///
  /// Layers are written before they get their backing file: opening a chain for every one would cost
  /// the square of the depth.
  static func chain(depth: Int, _ plan: Plan, _ directory: String) throws -> ServedImage {
    let clusters = plan.diskSize * 16
    var layers = [[Int]](repeating: [], count: depth)
    var state: UInt64 = 88
    for cluster in 0..<clusters {
      state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
      layers[Int(state >> 33) % depth].append(cluster)
    }
    var script = ""
    for (index, own) in layers.enumerated() {
      let words = own.map { "write -q -P \(index % 255 + 1) \($0 * 64)k 64k" }
      try Data((words.joined(separator: "\n") + "\n").utf8).write(
        to: URL(fileURLWithPath: "\(directory)/words.\(index)"))
      script += """
        qemu-img create -q -f qcow2 layer\(index).qcow2 \(plan.diskSize)M
        qemu-io -f qcow2 layer\(index).qcow2 < words.\(index) > /dev/null

        """
      if index > 0 {
        script +=
          "qemu-img rebase -q -u -f qcow2 -b layer\(index - 1).qcow2 -F qcow2"
          + " layer\(index).qcow2\n"
      }
    }
    try Data(script.utf8).write(to: URL(fileURLWithPath: "\(directory)/make"))
    try Tool.run("bash -e make; rm words.* make", in: directory)
    return ServedImage(image: "layer\(depth - 1).qcow2", raw: "")
  }
}
