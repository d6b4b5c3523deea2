import CFaults
import Foundation
import TestSupport

/// A directory with the files that a scenario starts from, and the one in which it runs.
final class Workspace {
  let template: String
  let run: String
  private var files: [String: [UInt8]] = [:]

  init(directory: String, script: String) throws {
    template = directory + "/template"
    run = directory + "/run"
    for path in [template, run] {
      try? FileManager.default.removeItem(atPath: path)
      try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true)
    }
    let result = try Shell.run("set -e\n" + script, in: template, seconds: 120)
    guard result.status == 0 else {
      throw CommandFailure(description: result.output + result.errorOutput)
    }
    try keep(from: template)
  }

  /// Takes the files of a directory as those to start from.
  func keep(from directory: String) throws {
    files = [:]
    for name in try FileManager.default.contentsOfDirectory(atPath: directory) {
      files[name] = try Self.bytes(directory + "/" + name)
    }
  }

  var names: Set<String> { Set(files.keys) }

  /// What is in the run's directory now.
  func namesNow() throws -> Set<String> {
    faults_pass(1)
    defer { faults_pass(0) }
    return Set(try FileManager.default.contentsOfDirectory(atPath: run))
  }

  static func bytes(_ path: String) throws -> [UInt8] {
    faults_pass(1)
    defer { faults_pass(0) }
    return [UInt8](try Data(contentsOf: URL(fileURLWithPath: path)))
  }

  func isUnchanged(_ name: String) throws -> Bool {
    try Self.bytes(run + "/" + name) == files[name]
  }

  /// Puts everything back as it was.
  func restore() throws {
    for name in try namesNow() { unlink(run + "/" + name) }
    for (name, bytes) in files {
      let file = open(run + "/" + name, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0o600)
      guard file >= 0 else { throw CommandFailure(description: "cannot make \(name)") }
      defer { close(file) }
      ftruncate(file, off_t(bytes.count))
      // Holes stay holes: what a raw image has allocated is part of what is tested.
      bytes.withUnsafeBytes { memory in
        for start in stride(from: 0, to: bytes.count, by: 4096) {
          let page = UnsafeRawBufferPointer(
            rebasing: memory[start..<min(start + 4096, bytes.count)])
          if Self.isZero(page) { continue }
          pwrite(file, page.baseAddress, page.count, off_t(start))
        }
      }
    }
  }

  private static func isZero(_ page: UnsafeRawBufferPointer) -> Bool {
    page[0] == 0 && memcmp(page.baseAddress!, page.baseAddress! + 1, page.count - 1) == 0
  }
}
