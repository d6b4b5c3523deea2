import Foundation
import HostSystem
import TestSupport
import Testing

/// Every kind of image that QEMU makes, in pairs of properties and at random: mounted, written,
/// streamed, put under a snapshot, given back to QEMU, and mounted again.
///
/// A sample runs by default. `CHAINFS_MATRIX=all` runs the whole, another number so many, and
/// `CHAINFS_MATRIX_SEED` makes another list.
@Suite(
  .serialized, .timeLimit(.minutes(30)),
  .enabled(if: Requirements.areMet, "needs root, FUSE and qemu-utils"))
struct MatrixTests {
  static let wholeCount = 320
  static let sampleCount = 40

  @Test("images of every kind are disks here, and stay QEMU's")
  func matrix() async throws {
    let environment = ProcessInfo.processInfo.environment
    let seed = environment["CHAINFS_MATRIX_SEED"].flatMap { UInt64($0) } ?? 1
    let asked = environment["CHAINFS_MATRIX"] ?? ""
    let count = asked == "all" ? Self.wholeCount : Int(asked) ?? Self.sampleCount
    let only = environment["CHAINFS_MATRIX_ONLY"].flatMap { Int($0) }
    let forms = Array(MatrixForm.list(count: count, seed: seed).enumerated())
      .filter { only == nil || $0.offset == only }
    let failed = await withTaskGroup(of: Int.self) { group in
      // Two at a time: much of an image's time is one process waiting for another.
      for part in 0..<2 {
        group.addTask {
          var failed = 0
          for (number, form) in forms where number % 2 == part {
            do {
              var run = try MatrixRun(form, number: number, seed: seed)
              try run.run()
            } catch {
              failed += 1
              Issue.record("image \(number) of seed \(seed), \(form): \(error)")
            }
          }
          return failed
        }
      }
      return await group.reduce(0, +)
    }
    print("matrix: \(forms.count) images of seed \(seed) ran, \(failed) failed")
    #expect(!forms.isEmpty)
  }

  @Test("the whole matrix has every value of every property, and most of their pairs")
  func coverage() {
    let forms = MatrixForm.list(count: Self.wholeCount, seed: 1)
    #expect(Set(forms).count >= 300)
    let values = Set(forms.flatMap(\.values))
    for value in ["version=2", "cluster=512", "cluster=2097152", "refcount=1", "refcount=64"] {
      #expect(values.contains(value))
    }
    let sample = Set(forms.prefix(Self.sampleCount).flatMap(\.values))
    #expect(values == sample, "the sample lacks \(values.subtracting(sample))")
  }
}

/// One image on its way through the matrix.
private struct MatrixRun {
  let form: MatrixForm
  let box: Sandbox
  var random: SeededGenerator
  var model = ByteModel(size: 0)
  /// What `top` holds since a snapshot was put over it.
  var frozen = ByteModel(size: 0)

  init(_ form: MatrixForm, number: Int, seed: UInt64) throws {
    self.form = form
    box = try Sandbox()
    random = SeededGenerator(seed: seed &* 1_000_003 &+ UInt64(number))
  }

  mutating func run() throws {
    let image = try MatrixImage(form, in: box, random: &random)
    model = ByteModel(bytes: try bytes("expected.raw"))
    try mount("top")
    try compare("as it was made")
    try work(steps: 12)
    // An encrypted image below needs its secret there too: the new top is to stand alone.
    let streamsFirst = !form.isEncrypted && random.oneIn(2)
    if streamsFirst { try stream(image) }
    try box.run("echo $PWD/snap > mnt/.jobs/vda/snapshot")
    frozen = model
    try work(steps: 8)
    if !streamsFirst { try stream(image) }
    try work(steps: 4)
    try box.run("chainfs unmount mnt")
    try checkAll(image, active: "snap")
    // The other way round: QEMU writes, and the disk is mounted again.
    try box.run(
      """
      \(image.work("snap", image.size, steps: 3, &random))
      qemu-img convert -f qcow2 -O raw snap expected.raw
      """)
    model = ByteModel(bytes: try bytes("expected.raw"))
    try mount("snap")
    try compare("as QEMU left it")
    try work(steps: 4)
    try box.run("chainfs unmount mnt")
    try checkAll(image, active: "snap")
  }

  private func mount(_ name: String) throws {
    let secret = form.isEncrypted ? "-o secret=secret" : ""
    try box.run("chainfs mount \(secret) vda=\(name) mnt")
  }

  /// Streams the whole chain, or down to its lowest layer.
  private mutating func stream(_ image: MatrixImage) throws {
    let toBase = form.depth > 1 && random.oneIn(2) && !form.isEncrypted
    let line = try box.run(
      "echo \(toBase ? "base=base0" : "") > mnt/.jobs/vda/stream; cat mnt/.jobs/vda/wait")
    let state = try box.status()["state"]
    guard state == "completed" else {
      throw CommandFailure(description: "the stream ended \(state ?? "nowhere"): \(line)")
    }
    try compare("streamed\(toBase ? " to base0" : "")")
  }

  /// Writes, zeroes and discards at random places, on the disk and in the model.
  private mutating func work(steps: Int) throws {
    do {
      let file = try SystemCall.open(box.device, flags: O_RDWR | O_CLOEXEC)
      for _ in 0..<steps {
        let start = Int.random(in: 0..<model.bytes.count, using: &random)
        let most = min(model.bytes.count - start, random.oneIn(4) ? 700_000 : 30_000)
        let length = Int.random(in: 1...most, using: &random)
        let range = GuestRange(offset: GuestOffset(UInt64(start)), length: UInt64(length))
        switch Int.random(in: 0..<7, using: &random) {
        case 0:
          try SystemCall.allocate(
            file.raw, .punch, at: UInt64(start), length: UInt64(length))
          model.zero(range)
        case 1:
          try SystemCall.allocate(file.raw, .zero, at: UInt64(start), length: UInt64(length))
          model.zero(range)
        case 2: try SystemCall.synchronize(file.raw)
        default:
          let bytes = random.bytes(length)
          try SystemCall.write(file.raw, bytes.rawSpan, at: UInt64(start))
          model.write(bytes, at: start)
        }
      }
    }
    try compare("after writes")
  }

  /// Every image that was written is QEMU's and holds the model, the layers below are as they were.
  private func checkAll(_ image: MatrixImage, active: String) throws {
    try image.checkClean("top")
    try image.checkClean(active)
    try Data(model.bytes).write(to: URL(fileURLWithPath: box.path + "/model.raw"))
    try Data(frozen.bytes).write(to: URL(fileURLWithPath: box.path + "/frozen.raw"))
    try box.run(
      """
      qemu-img compare -q -f qcow2 -F raw \(active) model.raw
      qemu-img convert \(image.opened("top")) -O raw now.raw
      cmp now.raw frozen.raw
      \(form.dataFile == .raw ? rawDataCheck : "")
      [ ! -e below.sums ] || sha256sum --quiet -c below.sums
      """)
    for number in 0..<form.snapshots {
      try box.run(
        """
        qemu-img convert \(image.openedSnapshot(number)) -O raw now.raw
        cmp now.raw snapshot-n\(number).raw
        """)
    }
  }

  /// A raw data file is the disk itself. It may be longer: QEMU makes it of whole clusters.
  private var rawDataCheck: String { "cmp -n \(frozen.bytes.count) top.data frozen.raw" }

  private func bytes(_ name: String) throws -> [UInt8] {
    [UInt8](try Data(contentsOf: URL(fileURLWithPath: "\(box.path)/\(name)")))
  }

  private func compare(_ moment: String) throws {
    var found = Data()
    do {
      // Not kept open by programs that start meanwhile: the disk could not be unmounted.
      let file = try SystemCall.open(box.device, flags: O_RDONLY | O_CLOEXEC)
      var bytes = [UInt8](repeating: 0, count: model.bytes.count + 1)
      var span = bytes.mutableRawSpan
      let count = try SystemCall.read(file.raw, into: &span, at: 0)
      found = Data(bytes[..<count])
    }
    // Data compares with memcmp; millions of bytes one by one take seconds in a debug build.
    if found == Data(model.bytes) { return }
    let place =
      found.count == model.bytes.count
      ? model.firstDifference(from: [UInt8](found), at: 0).map { "byte \($0) differs" } ?? ""
      : "\(found.count) bytes, not \(model.bytes.count)"
    throw CommandFailure(description: "\(moment): \(place)")
  }
}
