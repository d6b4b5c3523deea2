import BlockIO
import Foundation
import HostSystem
import TestSupport
import Testing

@testable import ImageDriver

extension Tag {
  @Tag static var crash: Tag
  @Tag static var qemu: Tag
}

let hasQemu = ToolAvailability.has(["qemu-img", "qemu-io"])

extension Image {
  /// Reads as a disk with nothing below; behind its end there are zeroes.
  func get(_ offset: Int, _ count: Int) throws -> [UInt8] {
    var bytes = [UInt8](repeating: 0, count: count)
    var done = 0
    let end = min(count, Int(virtualSize) - offset)
    while done < end {
      let place = GuestOffset(UInt64(offset + done))
      let extent = try mapping(at: place, upTo: UInt64(end - done))
      let length = Int(extent.length)
      var skip = 0
      if case .compressed(let span) = extent.mapping { skip = Int(place - span.clusterStart) }
      var part = [UInt8](repeating: 0, count: length)
      var span = part.mutableRawSpan
      try read(extent.mapping, skip: skip, into: &span)
      bytes.replaceSubrange(done..<done + length, with: part)
      done += length
    }
    return bytes
  }
}

extension WritableImage {
  /// Writes as the chain does, with nothing below.
  func put(_ bytes: [UInt8], at offset: Int) throws {
    var done = 0
    while done < bytes.count {
      let range = guestRange(offset + done, bytes.count - done)
      let step = try beginWrite(range)
      switch consume step {
      case .inPlace(let host, let length):
        try storage.put(Array(bytes[done..<done + Int(length)]), at: host.rawValue)
        done += Int(length)
      case .allocate(let ticket):
        let guest = ticket.guest
        let host = ticket.host
        let count = Int(min(guest.end, range.end) - range.offset)
        var content = try get(Int(guest.offset.rawValue), Int(guest.length))
        let skip = Int(range.offset - guest.offset)
        content.replaceSubrange(skip..<skip + count, with: bytes[done..<done + count])
        try storage.put(content, at: host.rawValue)
        try ticket.commit()
        done += count
      }
    }
  }

  /// Zeroes as the chain does, with nothing below.
  func zero(_ offset: Int, _ count: Int, _ mode: ZeroMode, below: BelowContents = .readsZero) throws
  {
    var position = offset
    while position < offset + count {
      let rest = guestRange(position, offset + count - position)
      let handled = Int(try writeZeroes(rest, mode: mode, below: below))
      if handled > 0 {
        position += handled
        continue
      }
      let end = min((position / clusterSize + 1) * clusterSize, offset + count)
      try put([UInt8](repeating: 0, count: end - position), at: position)
      position = end
    }
  }

  /// Flushes and frees, as the chain does when nobody else is at work.
  func settle() throws {
    try flush()
    if hasFreedClusters { try releaseFreed() }
  }
}

func guestRange(_ offset: Int, _ count: Int) -> GuestRange {
  GuestRange(offset: GuestOffset(UInt64(offset)), length: UInt64(count))
}

/// Why QEMU did not do what a test needs.
struct BenchFailure: Error {
  var description: String
}

/// A directory with images that QEMU makes and judges.
struct QemuBench {
  let directory: TemporaryDirectory
  let path: String

  init(_ name: String = "disk.qcow2") throws {
    directory = try TemporaryDirectory()
    path = directory.file(name)
  }

  func create(_ options: String, size: Int) throws {
    try runSuccessfully(
      "qemu-img", "create", "-q", "-f", "qcow2", "-o", options, path, String(size))
  }

  func io(_ commands: String...) throws {
    for command in commands {
      let text = try runSuccessfully("qemu-io", "-f", "qcow2", "-c", command, path)
      if text.contains("rror") || text.contains("failed") {
        throw BenchFailure(description: text)
      }
    }
  }

  func open() throws -> Qcow2Image {
    try Qcow2Image(
      storage: HostFile.open(path, access: .readWrite, locking: .qemu, role: .active))
  }

  /// Closes the image and lets go of the file, so that QEMU may look at it.
  func finish(_ image: any WritableImage) throws {
    try image.close()
    image.storage.close()
  }

  /// What qemu-img check complains about; nil if nothing, leaks included.
  func check() throws -> String? {
    let result = try run("qemu-img", "check", path)
    return result.status == 0 ? nil : result.output + result.errorOutput
  }

  /// The whole disk as QEMU reads it.
  func flat(_ more: [String] = []) throws -> [UInt8] {
    let raw = directory.file("flat.raw")
    let words = ["qemu-img", "convert", "-f", "qcow2"] + more + ["-O", "raw", path, raw]
    let result = try run(words)
    if result.status != 0 { throw BenchFailure(description: result.errorOutput) }
    return [UInt8](try Data(contentsOf: URL(fileURLWithPath: raw)))
  }
}

/// Random changes of an image and its model alike.
struct Workload {
  var random: SeededGenerator
  var model: ByteModel
  let allowsZeroes: Bool

  init(_ random: SeededGenerator, size: Int, allowsZeroes: Bool = true) {
    self.random = random
    self.allowsZeroes = allowsZeroes
    model = ByteModel(size: size)
  }

  mutating func step(_ image: any WritableImage, longest: Int) throws {
    let size = model.bytes.count
    let offset = Int.random(in: 0..<size, using: &random) & ~(random.oneIn(3) ? 0 : 511)
    let count = Int.random(in: 1...min(longest, size - offset), using: &random)
    let kind = Int.random(in: 0..<10, using: &random)
    if kind < 7 || !allowsZeroes {
      let bytes = random.bytes(count)
      model.write(bytes, at: offset)
      try image.put(bytes, at: offset)
    } else {
      model.zero(guestRange(offset, count))
      try image.zero(
        offset, count, kind == 7 ? .keepAllocation : .unmap,
        below: random.oneIn(2) ? .readsZero : .mayHaveData)
    }
    if random.oneIn(8) { try image.settle() }
  }
}
