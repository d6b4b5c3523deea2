import Foundation
import TestSupport

/// base <- sn1 <- sn2 <- sn3, made by qemu-img and qemu-io, with one ext4 that grew in between.
///
/// The file system is made and changed in a raw file; each overlay gets the clusters that differ
/// from the state before, so that every layer holds a part of what a guest would have written.
/// `expected.raw` is the disk as the whole chain has to show it.
struct GuestChain {
  static let mebibytes = 192
  static let layers = ["base", "sn1", "sn2", "sn3"]

  static func make(in box: Sandbox, overlayOptions: [String] = ["", "", ""]) throws {
    let cluster = 65536
    try box.run(
      """
      mkdir seed && head -c 6000000 /dev/urandom > seed/one && seq 200000 > seed/text
      truncate -s \(mebibytes)M state0
      mkfs.ext4 -q -d seed state0
      qemu-img convert -O qcow2 state0 base.qcow2
      """)
    for (index, layer) in layers.dropFirst().enumerated() {
      let state = "state\(index + 1)"
      let below = layers[index]
      try box.run(
        """
        cp --sparse=always state\(index) \(state)
        head -c 5000000 /dev/urandom > file\(index)
        debugfs -w -R 'write file\(index) file\(index)' \(state) 2>/dev/null
        debugfs -w -R 'rm text' \(state) 2>/dev/null
        qemu-img create -q -f qcow2 \(overlayOptions[index]) -b \(below).qcow2 -F qcow2 \
          \(layer).qcow2
        """)
      let old = try Data(
        contentsOf: URL(fileURLWithPath: "\(box.path)/state\(index)"), options: .alwaysMapped)
      let new = try Data(
        contentsOf: URL(fileURLWithPath: "\(box.path)/\(state)"), options: .alwaysMapped)
      var commands = ""
      for offset in stride(from: 0, to: new.count, by: cluster) {
        let range = offset..<min(offset + cluster, new.count)
        guard old[range] != new[range] else { continue }
        let name = "\(box.path)/part-\(offset)"
        try Data(new[range]).write(to: URL(fileURLWithPath: name))
        commands += "write -q -s \(name) \(offset) \(range.count)\n"
      }
      try Data(commands.utf8).write(to: URL(fileURLWithPath: box.path + "/commands"))
      try box.run("qemu-io -f qcow2 \(layer).qcow2 < commands > /dev/null; rm -f part-* commands")
    }
    try box.run("mv state3 expected.raw; rm -rf state? seed file?; e2fsck -fn expected.raw")
  }
}
