import Foundation
import Glibc

/// What went wrong, in words.
struct BenchError: Error, CustomStringConvertible {
  var description: String

  init(_ description: String) { self.description = description }
}

/// Other programs: run to their end, or found.
enum Tool {
  /// Runs a shell script that has to succeed, and gives what it printed.
  ///
  /// Foundation's Process is no use here: it takes a program for running as long as a daemon that the
  /// program left behind is there.
  @discardableResult
  static func run(_ script: String, in directory: String = "/") throws -> String {
    let place = FileManager.default.temporaryDirectory.appendingPathComponent(UUID().uuidString)
    try FileManager.default.createDirectory(at: place, withIntermediateDirectories: false)
    defer {
      do { try FileManager.default.removeItem(at: place) } catch { say("\(place.path): \(error)") }
    }
    let output = place.appendingPathComponent("output")
    try Data("cd '\(directory)'\n\(script)".utf8).write(to: place.appendingPathComponent("script"))
    // Errors go with the output: a script that fails is told with all that it said.
    let status = unsafe system(
      "bash -e -o pipefail '\(place.path)/script' > '\(output.path)' 2>&1 < /dev/null")
    let text = String(decoding: try Data(contentsOf: output), as: UTF8.self)
    if status != 0 { throw BenchError("\(script)\n\(text)") }
    return text
  }

  /// The process id that a script prints.
  static func process(_ script: String) throws -> Int32 {
    let text = try run(script)
    guard let process = Int32(text.prefix { $0 != "\n" }) else {
      throw BenchError("\(script) gave no process id: \(text)")
    }
    return process
  }

  /// The path of a program in PATH, nil if there is none.
  static func find(_ name: String) -> String? {
    let places = (ProcessInfo.processInfo.environment["PATH"] ?? "").split(separator: ":")
    return places.map { "\($0)/\(name)" }.first { FileManager.default.isExecutableFile(atPath: $0) }
  }

  /// A line for whoever waits, beside the results.
  static func say(_ line: String) {
    FileHandle.standardError.write(Data((line + "\n").utf8))
  }
}

/// A directory that goes with its owner, with whatever is mounted in it.
final class WorkDirectory {
  let path: String

  init(in parent: String) throws {
    path = "\(parent)/chainfs-bench-\(ProcessInfo.processInfo.processIdentifier)"
    try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: false)
  }

  deinit {
    let script = """
      awk -v top='\(path)/' 'index($2, top) == 1 { print $2 }' /proc/mounts | sort -r |
        while read -r place; do umount -l "$place"; done
      losetup -nO NAME,BACK-FILE | awk -v top='\(path)/' 'index($2, top) == 1 { print $1 }' |
        while read -r device; do losetup -d "$device"; done
      rm -rf '\(path)'
      """
    do {
      try Tool.run(script)
    } catch {
      Tool.say("\(path) could not be cleared: \(error)")
    }
  }
}
