import Foundation
import TestSupport
import Testing

/// Images that are damaged on purpose: chainfs and QEMU find the same, a repair mends what can be
/// mended, both find the same again, and no byte that could be read has changed.
@Suite(
  "Damaged images", .serialized, .timeLimit(.minutes(10)),
  .enabled(if: ToolAvailability.has(["qemu-img", "qemu-io"])))
struct DamagedImageTests {
  /// A box with an image of a form, and the bytes that it was made with.
  final class Bench {
    let box: Sandbox
    let form: DamagedForm
    let bytes: Data
    var path: String { box.path + "/image" }

    init(_ form: DamagedForm) throws {
      self.form = form
      box = try Sandbox()
      try box.run(form.script)
      bytes = try Data(contentsOf: URL(fileURLWithPath: box.path + "/image"))
    }

    func put(_ bytes: Data) throws { try bytes.write(to: URL(fileURLWithPath: path)) }

    func qemu() throws -> CheckCounts? {
      let result = try box.tryRun("qemu-img check --output=json \(form.source)")
      return CheckCounts(json: result.output)
    }

    func chainfs(_ flags: String = "") throws -> (counts: CheckCounts?, text: String) {
      let result = try box.tryRun("chainfs check --json \(flags) image")
      let counts = CheckCounts(json: result.output)
      // What it says and how it ends go together.
      #expect(result.status == (counts?.isSound == true ? 0 : 1))
      return (counts, result.output + result.errorOutput)
    }

    /// The disk, and that of a snapshot, with the sectors that cannot be read.
    func contents() throws -> [(bytes: Data, unreadable: Set<Int>)] {
      var all: [(Data, Set<Int>)] = []
      for source in form.hasSnapshots ? ["", "-l snapshot.name=one"] : [""] {
        // An image that QEMU does not open has nothing that can be read.
        let result = try box.tryRun(
          """
          rm -f raw
          qemu-img convert --salvage -O raw \(source) \(form.source) raw || rm -f raw
          """)
        let place = URL(fileURLWithPath: box.path + "/raw")
        guard let bytes = try? Data(contentsOf: place) else {
          all.append((Data(), []))
          continue
        }
        let lines = result.errorOutput.split(separator: "\n")
        let unreadable = lines.compactMap { line -> Int? in
          guard let range = line.range(of: "reading offset ") else { return nil }
          return Int(line[range.upperBound...].prefix { $0 != ":" }).map { $0 / 512 }
        }
        all.append((bytes, Set(unreadable)))
      }
      return all
    }
  }

  /// Both tools look, chainfs mends, both look again.
  @discardableResult
  func judge(_ bench: Bench, _ damage: ImageBytes, _ comment: String) throws -> Bool {
    try bench.put(damage.bytes)
    let before = try bench.contents()
    let (ours, text) = try bench.chainfs()
    if let theirs = try bench.qemu() {
      #expect(ours == theirs, "\(comment)\n\(text)")
    } else {
      #expect(ours?.isSound != true, "\(comment): QEMU cannot check it\n\(text)")
    }
    #expect(try Data(contentsOf: URL(fileURLWithPath: bench.path)) == damage.bytes)
    guard ours != nil else { return false }
    let (_, said) = try bench.chainfs("--repair all")
    let (left, leftText) = try bench.chainfs()
    if let theirs = try bench.qemu() {
      #expect(left == theirs, "\(comment), repaired\n\(said)\n\(leftText)")
    } else {
      #expect(left?.isSound != true, "\(comment), repaired: QEMU cannot check it\n\(leftText)")
    }
    if left?.isSound != true {
      #expect(leftText.contains("\"findings\": [\""), "\(comment): nothing is said\n\(leftText)")
    }
    for (old, new) in zip(before, try bench.contents()) {
      expectUnchanged(old, new, comment)
    }
    return left?.isSound == true
  }

  private func expectUnchanged(
    _ old: (bytes: Data, unreadable: Set<Int>), _ new: (bytes: Data, unreadable: Set<Int>),
    _ comment: String
  ) {
    if old.bytes.isEmpty { return }
    guard old.bytes.count == new.bytes.count else {
      Issue.record("\(comment): the disk cannot be read any more")
      return
    }
    for sector in 0..<old.bytes.count / 512 where !old.unreadable.contains(sector) {
      let range = sector * 512..<sector * 512 + 512
      if new.unreadable.contains(sector) || old.bytes[range] != new.bytes[range] {
        Issue.record("\(comment): sector \(sector) changed")
        return
      }
    }
  }

  // MARK: - Damage with a name

  @Test("damage is counted as QEMU counts it, and mended where it can be", arguments: Damage.all)
  func damaged(_ damage: Damage) throws {
    let bench = try Bench(damage.form)
    var image = ImageBytes(bytes: bench.bytes)
    damage.change(&image)
    let isSound = try judge(bench, image, damage.testDescription)
    #expect(isSound == damage.isMendable)
    #expect(Damage.all.count >= 50)
  }

  // MARK: - Bits that flip

  @Test("flipped bits are counted as QEMU counts them", arguments: DamagedForm.all)
  func flips(form: DamagedForm) throws {
    let bench = try Bench(form)
    var random = Seed.generator("flipped bits, \(form.name)")
    #expect(try judge(bench, ImageBytes(bytes: bench.bytes), "\(form.name), sound"))
    var regions: [ImageBytes.Region] = [.l1, .l2, .l2, .refcountTable, .block]
    if form.hasSnapshots { regions.append(.snapshots) }
    if form.name == "bitmaps" { regions.append(.bitmaps) }
    for region in regions {
      var image = ImageBytes(bytes: bench.bytes)
      let what = image.flip(region, &random)
      try judge(bench, image, "\(form.name), \(what)")
    }
  }
}

extension DamagedForm: CustomTestStringConvertible {
  var testDescription: String { name }
}
