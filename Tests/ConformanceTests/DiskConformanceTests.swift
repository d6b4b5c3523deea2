import Chain
import Foundation
import HostSystem
import TestSupport
import Testing

/// The same promise below the mount: a disk on images of qemu-img, against a byte model.
@Suite(.serialized, .enabled(if: ToolAvailability.has(["qemu-img", "qemu-io"])))
struct DiskConformanceTests {
  @Test(
    "a disk on qemu-img's images holds what a byte model holds, and passes its check",
    arguments: ImageForm.all)
  func randomWork(form: ImageForm) throws {
    let box = try Sandbox()
    try form.make(in: box)
    var random = Seed.generator("random work, \(form)")
    let expected = try Data(contentsOf: URL(fileURLWithPath: box.path + "/expected.raw"))
    var model = ByteModel(bytes: Array(expected))
    let disk = try Disk.open(
      DeviceConfiguration(name: "vda", image: .qcow2(path: box.path + "/top.qcow2")))
    try compare(disk, model, "as it was made")
    for step in 0..<100 {
      let start = Int.random(in: 0..<model.bytes.count, using: &random)
      let limit = min(model.bytes.count - start, random.oneIn(8) ? 3 << 20 : 90_000)
      let count = Int.random(in: 1...limit, using: &random)
      let range = GuestRange(offset: GuestOffset(UInt64(start)), length: UInt64(count))
      switch Int.random(in: 0..<10, using: &random) {
      case 0..<5:
        let bytes = random.bytes(count)
        try disk.write(bytes.rawSpan, at: range.offset)
        model.write(bytes, at: start)
      case 5:
        try disk.writeZeroes(range)
        model.zero(range)
      case 6:
        try disk.discard(range)
        model.zero(range)
      case 7: try disk.preallocate(range)
      case 8: try disk.flush()
      default:
        _ = try disk.populate(range.narrowed(to: UInt64(disk.clusterSize)), base: nil)
      }
      if step.isMultiple(of: 25) { try compare(disk, model, "step \(step)") }
    }
    try compare(disk, model, "at the end")
    try disk.close()
    try Data(model.bytes).write(to: URL(fileURLWithPath: box.path + "/model.raw"))
    try box.run(
      """
      qemu-img check -q top.qcow2
      qemu-img compare -q -f qcow2 -F raw top.qcow2 model.raw
      """)
  }

  private func compare(_ disk: Disk, _ model: ByteModel, _ moment: String) throws {
    var found = [UInt8](repeating: 0, count: model.bytes.count)
    var span = found.mutableRawSpan
    try disk.read(into: &span, at: GuestOffset(0))
    // Data compares with memcmp; millions of bytes one by one take seconds in a debug build.
    if Data(found) != Data(model.bytes) {
      let place = model.firstDifference(from: found, at: 0)
      Issue.record("\(moment): byte \(place ?? -1) differs")
    }
  }
}
