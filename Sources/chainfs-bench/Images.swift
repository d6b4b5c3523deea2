import Foundation

/// The images of the rows. The bytes are random, so that nothing finds zeroes in them; and they are on the
/// disk before anybody is measured, so that nobody waits for another's.
enum Images {
  // Random bytes are slow to make, so the same come again and again; nobody compares clusters.
  private static func fill(_ name: String, _ size: Int) -> String {
    """
    head -c 64M /dev/urandom > seed
    for i in $(seq \(size / 64)); do cat seed; done > \(name)
    rm seed
    """
  }

  /// One image, every cluster written; the raw file has the same bytes.
  static func allocated(_ plan: Plan, _ directory: String) throws -> ServedImage {
    try Tool.run(
      """
      \(fill("flat.raw", plan.diskSize))
      qemu-img convert -f raw -O qcow2 flat.raw top.qcow2
      sync flat.raw top.qcow2
      """, in: directory, limit: 300)
    return ServedImage(image: "top.qcow2", raw: "flat.raw", size: plan.diskSize)
  }

  /// An empty overlay on a full image; made again, the full image stays.
  static func overlay(_ plan: Plan, _ directory: String) throws -> ServedImage {
    try overlay(size: plan.diskSize, in: directory)
    return ServedImage(image: "top.qcow2", raw: "flat.raw", size: plan.diskSize)
  }

  /// The same, beside an empty raw file.
  static func emptyOverlay(_ plan: Plan, _ directory: String) throws -> ServedImage {
    try overlay(size: plan.diskSize, in: directory)
    try Tool.run("rm -f empty.raw; truncate -s \(plan.diskSize)M empty.raw", in: directory)
    return ServedImage(image: "top.qcow2", raw: "empty.raw", size: plan.diskSize)
  }

  /// The same with a disk on which a measurement beside a stream ends before the stream does.
  static func largeOverlay(_ plan: Plan, _ directory: String) throws -> ServedImage {
    try overlay(size: plan.largeDiskSize, in: directory)
    try Tool.run("rm -f flat.raw", in: directory)
    return ServedImage(image: "top.qcow2", size: plan.largeDiskSize)
  }

  /// The same on an XFS that shares blocks, in an image file of its own.
  static func sharingOverlay(_ plan: Plan, _ directory: String) throws -> ServedImage {
    if Tool.find("mkfs.xfs") == nil { throw BenchError("mkfs.xfs is missing; install it") }
    // Large enough that the start and the end of a stream do not outweigh it.
    let size = max(2 * plan.diskSize, 1024)
    // Room for the raw file, the base, and an overlay beside one whose blocks are not free yet.
    try Tool.run(
      """
      [ -e xfs ] && exit
      truncate -s \(4 * size + 512)M xfs.img
      mkfs.xfs -q -m reflink=1 xfs.img
      mkdir xfs
      mount -o loop xfs.img xfs
      """, in: directory, limit: 300)
    try overlay(size: size, in: "\(directory)/xfs")
    try Tool.run("rm -f flat.raw", in: "\(directory)/xfs")
    return ServedImage(image: "xfs/top.qcow2", size: size)
  }

  /// An empty image and an empty raw file.
  static func blank(_ plan: Plan, _ directory: String) throws -> ServedImage {
    try Tool.run(
      """
      rm -f top.qcow2 flat.raw
      qemu-img create -q -f qcow2 top.qcow2 \(plan.diskSize)M
      truncate -s \(plan.diskSize)M flat.raw
      """, in: directory)
    return ServedImage(image: "top.qcow2", raw: "flat.raw", size: plan.diskSize)
  }

  private static func overlay(size: Int, in directory: String) throws {
    try Tool.run(
      """
      [ -e base.qcow2 ] || {
        \(fill("flat.raw", size))
        qemu-img convert -f raw -O qcow2 flat.raw base.qcow2; }
      rm -f top.qcow2*
      qemu-img create -q -f qcow2 -b base.qcow2 -F qcow2 top.qcow2
      sync base.qcow2 top.qcow2
      """, in: directory, limit: 600)
  }

  /// A chain in a directory of its own, in which each cluster is in one layer, dealt out by a fixed shuffle.
  ///
  /// One qemu-io writes all layers, and opens none of them with what is below: opening a chain for
  /// every layer would cost the square of the depth.
  static func chain(depth: Int, _ plan: Plan, _ directory: String) throws -> ServedImage {
    var layers = [[Int]](repeating: [], count: depth)
    var state: UInt64 = 88
    for cluster in 0..<plan.diskSize * 16 {
      state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
      layers[Int(state >> 33) % depth].append(cluster)
    }
    var words = ""
    for (index, own) in layers.enumerated() {
      words +=
        #"open json:{"driver":"qcow2","backing":null,"file":{"driver":"file","#
        + "\"filename\":\"layer\(index).qcow2\"}}\n"
      for cluster in own { words += "write -q -P \(index % 255 + 1) \(cluster * 64)k 64k\n" }
      words += "close\n"
    }
    try Data(words.utf8).write(to: URL(fileURLWithPath: "\(directory)/words"))
    try Tool.run(
      """
      mkdir depth\(depth)
      cd depth\(depth)
      qemu-img create -q -f qcow2 layer0.qcow2 \(plan.diskSize)M
      for i in $(seq \(depth - 1)); do
        qemu-img create -q -u -f qcow2 -b layer$((i - 1)).qcow2 -F qcow2 layer$i.qcow2 \
          \(plan.diskSize)M
      done
      qemu-io < ../words > /dev/null
      """, in: directory, limit: 600)
    return ServedImage(image: top(ofDepth: depth), size: plan.diskSize)
  }

  /// The top of a chain that was made, in the row's directory.
  static func top(ofDepth depth: Int) -> String { "depth\(depth)/layer\(depth - 1).qcow2" }
}
