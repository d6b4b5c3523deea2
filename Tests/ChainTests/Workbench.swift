import Foundation
import HostSystem
import ImageDriver
import TestSupport
import Testing

@testable import Chain

/// A directory of a test, gone with it, and QEMU's tools to make images in it.
final class Workbench: Sendable {
  let directory: String

  init() throws {
    let place = FileManager.default.temporaryDirectory.appendingPathComponent(
      "chain-\(UUID().uuidString)")
    try FileManager.default.createDirectory(at: place, withIntermediateDirectories: true)
    directory = place.resolvingSymlinksInPath().path
  }

  deinit {
    try? FileManager.default.removeItem(atPath: directory)
  }

  func path(_ name: String) -> String { directory + "/" + name }

  static func hasTool(_ name: String) -> Bool {
    ProcessInfo.processInfo.environment["CI"] == "true"
      || FileManager.default.isExecutableFile(atPath: "/usr/bin/" + name)
  }

  /// Runs a tool in the directory and gives what it printed; a failure fails the test.
  @discardableResult
  func run(_ tool: String, _ arguments: [String]) throws -> String {
    try runSuccessfully([tool] + arguments, in: directory, seconds: 60)
  }

  @discardableResult
  func qemuImg(_ arguments: String...) throws -> String { try run("qemu-img", arguments) }

  func qemuIO(_ image: String, format: String = "qcow2", _ commands: [String]) throws {
    if commands.isEmpty { return }
    try run("qemu-io", ["-f", format] + commands.flatMap { ["-c", $0] } + [image])
  }

  /// The bytes of a disk as QEMU reads them.
  func flatBytes(_ image: String, format: String = "qcow2") throws -> [UInt8] {
    let flat = path("flat.raw")
    try qemuImg("convert", "-f", format, "-O", "raw", image, flat)
    return [UInt8](try Data(contentsOf: URL(fileURLWithPath: flat)))
  }

  /// Fails the test if QEMU finds an image damaged or leaking.
  func expectClean(_ image: String) throws {
    do {
      try qemuImg("check", "-f", "qcow2", image)
    } catch let failure as CommandFailure {
      Issue.record("\(failure)")
    }
  }
}

extension Disk {
  /// The bytes of a range.
  func bytes(at offset: UInt64, count: Int) throws -> [UInt8] {
    var result = [UInt8](repeating: 0xEE, count: count)
    var span = result.mutableSpan
    var bytes = span.mutableBytes
    try read(into: &bytes, at: GuestOffset(offset))
    return result
  }

  /// All bytes of the disk.
  func allBytes() throws -> [UInt8] {
    try bytes(at: 0, count: Int(virtualSize))
  }

  func put(_ bytes: [UInt8], at offset: UInt64) throws {
    try write(bytes.span.bytes, at: GuestOffset(offset))
  }

  /// Streams the whole disk and makes the base the backing file.
  @discardableResult
  func streamAll(base: LayerID? = nil) throws -> PopulateResult {
    let done = try populate(GuestRange(offset: .zero, length: virtualSize), base: base)
    try fillSnapshots(base: base)
    try rebase(to: base)
    return done
  }
}

extension Disk {
  /// Fills what internal snapshots lack.
  @discardableResult
  func fillSnapshots(base: LayerID? = nil) throws -> PopulateResult {
    let length = try streamLength(of: .snapshots)
    return try populate(.snapshots, GuestRange(offset: .zero, length: length), base: base)
  }

  /// All bytes of an internal snapshot of the active image, with what is below it.
  func bytes(ofSnapshot name: String) throws -> [UInt8] {
    try withLayers { layers throws(ChainError) in
      guard let active = layers.active.image as? Qcow2Image else { return [] }
      let image = try onImage { () throws(ImageError) in
        try SnapshotImage(named: name, of: active)
      }
      guard let image else { return [] }
      let layer = Layer(
        id: layers.active.id, image: image, path: layers.active.path, namedAs: nil)
      let view = DiskLayers(active: layer, writable: nil, backing: layers.backing)
      var result = [UInt8](repeating: 0xEE, count: Int(image.virtualSize))
      var span = result.mutableSpan
      var bytes = span.mutableBytes
      try read(into: &bytes, at: .zero, view)
      return result
    }
  }
}

/// The place of the first difference, for a message that one can read.
func firstDifference(_ one: [UInt8], _ other: [UInt8]) -> String? {
  if one.count != other.count { return "\(one.count) bytes against \(other.count)" }
  if one == other { return nil }
  let place = zip(one, other).enumerated().first { $0.element.0 != $0.element.1 }?.offset ?? 0
  return "byte \(place): \(one[place]) against \(other[place])"
}

func fileBytes(_ path: String) throws -> [UInt8] {
  [UInt8](try Data(contentsOf: URL(fileURLWithPath: path)))
}
