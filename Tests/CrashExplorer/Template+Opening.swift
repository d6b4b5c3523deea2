import BlockIO
import Chain
import Encryption
import Foundation
import HostSystem
import ImageDriver
import TestSupport

// MARK: - Mounting and checking what a workload or a crash left

extension Template {
  /// The image at a path is raw.
  func isRaw(_ path: String) -> Bool { shape.feature == .rawTop && path == "/top" }

  /// Opens the disk of an image as a mount does.
  func open(_ path: String, _ files: SimulatedFiles, isReadOnly: Bool = false) throws -> Disk {
    var configuration = DeviceConfiguration(
      name: "vda", image: isRaw(path) ? .raw(path: path) : .qcow2(path: path),
      isReadOnly: isReadOnly, locking: .none)
    configuration.isGrowable = true
    configuration.discard = shape.discards ? .unmap : .ignore
    configuration.detectZeroes = shape.detectsZeroes ? .unmap : .off
    if shape.feature == .luks {
      var secret = [UInt8](Self.secret.utf8)
      configuration.encryptedImages = .opened(with: SecretBytes(taking: &secret))
    }
    return try Disk.open(configuration, timeSource: FrozenTime(), files: files)
  }

  /// Throws if an image contradicts itself, or, once it was closed, has lost clusters.
  func expectSound(
    _ path: String, _ files: SimulatedFiles, mayLeak: Bool, isClosed: Bool
  ) throws {
    if isRaw(path) { return }
    guard let disk = files.disk(path) else { throw Fault("\(path) is gone") }
    let when = isClosed ? "after it was mounted and closed" : "before the mount"
    let report: CheckReport
    do { report = try ImageCheck.run(storage: disk) } catch {
      throw Fault("\(when) it cannot be checked: \(error)")
    }
    if report.corruptions > 0 || report.checkErrors > 0 {
      throw Fault(
        "\(when) \(path) has \(report.corruptions) corruptions: \(report.findings.prefix(3))")
    }
    if !mayLeak, report.leaks > 0 || report.leaksBehindEnd > 0 {
      throw Fault(
        "\(when) \(path) has \(report.leaks) leaks and \(report.leaksBehindEnd) behind its end: "
          + "\(report.findings.prefix(3))")
    }
  }

  /// Throws if qemu-img finds more than leaks.
  func askQEMU(_ path: String, _ files: SimulatedFiles) throws {
    if isRaw(path) || shape.feature == .luks { return }
    let place = try TemporaryDirectory()
    for name in files.names where name == path || name == "/top.data" {
      guard let disk = files.disk(name) else { continue }
      try Data(disk.snapshot.all).write(to: URL(fileURLWithPath: place.path + name))
    }
    // The layers below are not written out.
    let image =
      #"json:{"driver":"qcow2","backing":null,"file":{"driver":"file","filename":""#
      + place.path + path + #""}}"#
    let result = try Shell.run("qemu-img check '\(image)'", in: place.path)
    if result.status != 0 && result.status != 3 {
      throw Fault("qemu-img check: status \(result.status): \(result.output)\(result.errorOutput)")
    }
  }
}

extension Disk {
  /// All bytes of the disk.
  func allBytes() throws -> [UInt8] {
    var bytes = [UInt8](repeating: 0, count: Int(virtualSize))
    var span = bytes.mutableRawSpan
    try read(into: &span, at: .zero)
    return bytes
  }
}
