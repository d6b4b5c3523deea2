import BlockIO
import Encryption
import Foundation
import HostSystem
import TestSupport
import Testing

@testable import Chain

/// Disks on LUKS images of QEMU's making.
@Suite("Encrypted disks", .enabled(if: Workbench.hasTool("qemu-img")))
struct DiskEncryptionTests {
  static let options =
    "encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10,cluster_size=4k"

  private func secret() throws -> SecretBytes {
    var bytes = Array("pw".utf8)
    return try SecretBytes(passphrase: &bytes)
  }

  private func make(_ bench: Workbench, _ name: String, backing: String? = nil) throws {
    try Data("pw".utf8).write(to: URL(fileURLWithPath: bench.path("secret")))
    let below = backing.map { ["-u", "-F", "qcow2", "-b", $0] } ?? []
    try bench.run(
      "qemu-img",
      ["create", "-q", "-f", "qcow2", "--object", "secret,id=s,file=" + bench.path("secret")]
        + ["-o", Self.options] + below + [bench.path(name), "2M"])
  }

  private func open(
    _ path: String, files: any ImageFiles = HostImageFiles()
  ) throws -> Disk {
    try Disk.open(
      DeviceConfiguration(
        name: "vda", image: .qcow2(path: path), encryptedImages: .opened(with: try secret())),
      files: files)
  }

  /// The bytes of a disk as QEMU decrypts them.
  private func flatBytes(_ bench: Workbench, _ name: String) throws -> [UInt8] {
    try bench.run(
      "qemu-img",
      ["convert", "--object", "secret,id=s,file=" + bench.path("secret"), "--image-opts", "-O"]
        + ["raw", "driver=qcow2,encrypt.key-secret=s,file.filename=" + bench.path(name)]
        + [bench.path("flat")])
    return try fileBytes(bench.path("flat"))
  }

  @Test("threads that write parts of the same sectors during a stream keep their bytes")
  func threads() throws {
    let bench = try Workbench()
    try make(bench, "base")
    var random = Seed.generator("encrypted threads")
    let initial = random.bytes(2 << 20)
    let base = try open(bench.path("base"))
    try base.put(initial, at: 0)
    try base.close()
    #expect(firstDifference(try flatBytes(bench, "base"), initial) == nil)
    try make(bench, "top", backing: bench.path("base"))
    let disk = try open(bench.path("top"))
    #expect(try disk.layers().map(\.isEncrypted) == [true, true])
    let models = Monitor<[[Int: [UInt8]]]>(Array(repeating: [:], count: 4))
    let seed = random.next()
    // Stripes of 700 bytes are dealt out in turn, so every second sector has two writers.
    let stripe = 700
    let workers = try (0..<4).map { number in
      try Worker(name: "guest-\(number)") {
        var random = SeededGenerator(seed: seed &+ UInt64(number))
        var own: [Int: [UInt8]] = [:]
        do {
          for _ in 0..<250 {
            let row = Int.random(in: 0..<(2 << 20) / stripe / 4 - 1, using: &random)
            let place = (row * 4 + number) * stripe
            let bytes = random.bytes(stripe)
            try disk.put(bytes, at: UInt64(place))
            own[place] = bytes
            #expect(try disk.bytes(at: UInt64(place), count: stripe) == bytes)
          }
        } catch { Issue.record("\(error)") }
        models.withLock { $0[number] = own }
      }
    }
    _ = try disk.populate(GuestRange(offset: .zero, length: 2 << 20), base: nil)
    for worker in workers { worker.join() }
    try disk.rebase(to: nil)
    var expected = initial
    for own in models.withLock({ $0 }) {
      for (place, bytes) in own { expected.replaceSubrange(place..<place + stripe, with: bytes) }
    }
    #expect(firstDifference(try disk.allBytes(), expected) == nil)
    try disk.close()
    #expect(firstDifference(try flatBytes(bench, "top"), expected) == nil)
  }

  @Test(
    "after a crash what was flushed is there, and what was being written harms no neighbour",
    arguments: [1, 2, 3] as [UInt64])
  func crashes(seed: UInt64) throws {
    let bench = try Workbench()
    try make(bench, "top")
    var files = SimulatedFiles()
    let storage = try files.create("/top", like: SimulatedDisk(seed: 0), isLocked: false)
    let image = try fileBytes(bench.path("top"))
    try storage.write(image.rawSpan, at: .zero, intent: .metadata)
    files.settle()
    var random = SeededGenerator(seed: seed)
    var model = [UInt8](repeating: 0, count: 2 << 20)
    for round in 0..<8 as Range<UInt64> {
      let disk = try open("/top", files: files)
      for _ in 0..<12 {
        let place = Int.random(in: 0..<model.count - 9000, using: &random)
        let bytes = random.bytes(Int.random(in: 1...9000, using: &random))
        try disk.put(bytes, at: UInt64(place))
        model.replaceSubrange(place..<place + bytes.count, with: bytes)
      }
      try disk.flush()
      // Written and not flushed: such a byte may be old or new, all others are what they were.
      var newer = model
      var places = IndexSet()
      for _ in 0..<12 {
        let place = Int.random(in: 0..<model.count - 2000, using: &random)
        let bytes = random.bytes(Int.random(in: 1...2000, using: &random))
        try disk.put(bytes, at: UInt64(place))
        newer.replaceSubrange(place..<place + bytes.count, with: bytes)
        places.insert(integersIn: place..<place + bytes.count)
      }
      let left = files.crash(seed: seed &* 100 &+ round)
      try disk.close()
      files = left
      let again = try open("/top", files: files)
      let found = try again.allBytes()
      for run in places.rangeView {
        for place in run where found[place] != model[place] {
          #expect(found[place] == newer[place], "seed \(seed), round \(round), byte \(place)")
          model[place] = found[place]
        }
      }
      #expect(firstDifference(found, model) == nil, "seed \(seed), round \(round)")
      try again.close()
      files.settle()
    }
  }
}
