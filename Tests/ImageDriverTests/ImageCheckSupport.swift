import BlockIO
import Foundation
import HostSystem
import ImageDriver
import TestSupport
import Testing

/// The numbers of a check that chainfs and QEMU both give.
struct CheckNumbers: Equatable {
  var corruptions = 0
  var leaks = 0
  var checkErrors = 0
  var total = 0
  var allocated = 0
  var fragmented = 0
  var compressed = 0
  var end = 0

  init(_ report: CheckReport) {
    corruptions = report.corruptions
    leaks = report.leaks
    checkErrors = report.checkErrors
    total = Int(report.totalClusters)
    allocated = Int(report.allocatedClusters)
    fragmented = Int(report.fragmentedClusters)
    compressed = Int(report.compressedClusters)
    end = Int(report.imageEndOffset.rawValue)
  }

  /// Asks `qemu-img check`.
  init(qemuOf path: String) throws {
    let result = try run("qemu-img", "check", "-f", "qcow2", "--output=json", path)
    let object = try JSONSerialization.jsonObject(with: Data(result.output.utf8))
    let members = try #require(object as? [String: Any], "\(result.errorOutput)")
    let number = { (name: String) in members[name] as? Int ?? 0 }
    corruptions = number("corruptions")
    leaks = number("leaks")
    checkErrors = number("check-errors")
    total = number("total-clusters")
    allocated = number("allocated-clusters")
    fragmented = number("fragmented-clusters")
    compressed = number("compressed-clusters")
    end = number("image-end-offset")
  }
}

/// An image file in a directory of its own, with the places of its tables.
final class CheckedImage {
  let directory: TemporaryDirectory
  let path: String

  /// Runs a shell script in which `$IMAGE` is the image to make.
  init(_ script: String) throws {
    directory = try TemporaryDirectory()
    path = directory.file("image.qcow2")
    let script = "cd \(directory.path)\nexport IMAGE=\(path)\n" + script
    try runSuccessfully("bash", "-ec", script, seconds: 60)
  }

  func open(_ access: HostFile.Access) throws -> HostFile {
    try HostFile.open(
      path, access: access, locking: .none, role: access == .readOnly ? .backing : .active)
  }

  func check() throws -> CheckReport { try ImageCheck.run(storage: open(.readOnly)) }

  func repair(_ extent: RepairExtent) throws -> CheckReport {
    try ImageCheck.repair(storage: open(.readWrite), extent)
  }

  /// Chainfs and QEMU find the same.
  func expectAgreement(_ comment: Comment? = nil) throws {
    let report = try check()
    #expect(try CheckNumbers(report) == CheckNumbers(qemuOf: path), "\(report.findings)")
  }

  // MARK: - Bytes

  func number(at offset: UInt64) throws -> UInt64 {
    try open(.readOnly).bytes(at: offset, count: 8).reduce(0) { $0 << 8 | UInt64($1) }
  }

  func change(at offset: UInt64, _ body: (UInt64) -> UInt64) throws {
    let value = body(try number(at: offset))
    let file = try open(.readWrite)
    try file.put(
      (0..<8).map { UInt8(truncatingIfNeeded: value >> UInt64(56 - 8 * $0)) }, at: offset)
    file.close()
  }

  /// Changes the big-endian refcount of 16 bits of a host cluster in the first block.
  func setRefcount(of cluster: UInt64, to value: UInt16) throws {
    let place = try number(at: refcountTable) + cluster * 2
    let file = try open(.readWrite)
    try file.put([UInt8(value >> 8), UInt8(value & 255)], at: place)
    file.close()
  }

  var l1Table: UInt64 { get throws { try number(at: 40) } }
  var refcountTable: UInt64 { get throws { try number(at: 48) } }
  var snapshots: UInt64 { get throws { try number(at: 64) } }
  /// The first L2 table.
  var l2Table: UInt64 { get throws { try number(at: l1Table) & 0xff_ffff_ffff_fe00 } }
}
