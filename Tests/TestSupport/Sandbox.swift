import Foundation

/// A directory of its own for one test, with everything in it taken down again, however it went.
package final class Sandbox {
  private let directory: TemporaryDirectory
  package var path: String { directory.path }

  package init() throws {
    directory = try TemporaryDirectory()
    try FileManager.default.createDirectory(
      atPath: directory.file("mnt"), withIntermediateDirectories: false)
  }

  deinit {
    // In order first: file systems on loop devices, the loop devices, the mounts. What is left is
    // taken away lazily, with its daemon; a loop device on it could not be told by its path any more.
    let script = """
      for round in gently gently by-force; do
        awk -v top='\(path)/' 'index($2, top) == 1 { print $2 }' /proc/mounts | sort -r |
        while read -r place; do
          if [ $round = gently ]; then
            chainfs unmount "$place" 2>/dev/null || umount -i "$place" 2>/dev/null
            continue
          fi
          pid=$(chainfs status --pid "$place" 2>/dev/null)
          umount -i -l "$place"
          [ -z "$pid" ] || kill -9 "$pid" 2>/dev/null
        done
        losetup -nO NAME,BACK-FILE | awk -v top='\(path)/' 'index($2, top) == 1 { print $1 }' |
        while read -r device; do losetup -d "$device"; done
      done
      """
    _ = try? Shell.run(script, in: "/")
  }

  package var mountpoint: String { path + "/mnt" }
  package var device: String { path + "/mnt/vda" }

  /// Runs a script in the directory; the status is whatever it is.
  package func tryRun(_ script: String, shell: String = "/bin/bash", seconds: Double = 60) throws
    -> CommandResult
  {
    try Shell.run(script, in: path, shell: shell, seconds: seconds)
  }

  /// Runs a script that has to succeed, and gives what it printed.
  @discardableResult
  package func run(_ script: String, seconds: Double = 60) throws -> String {
    let outcome = try tryRun("set -e -o pipefail\n" + script, seconds: seconds)
    guard outcome.status == 0 else {
      throw CommandFailure(
        description:
          "status \(outcome.status), \(outcome.errorOutput)\(outcome.output)of: \(script)")
    }
    return outcome.text
  }

  /// The lines of the device's status file as keys and values.
  package func status(of device: String = "vda") throws -> [String: String] {
    var values: [String: String] = [:]
    for line in try run("cat mnt/.jobs/\(device)/status").split(separator: "\n").dropFirst() {
      guard let colon = line.range(of: ": ") else { continue }
      values[String(line[..<colon.lowerBound])] = String(line[colon.upperBound...])
    }
    return values
  }
}

extension CommandResult {
  /// The output without the newlines at its end.
  package var text: String {
    String(output.reversed().drop { $0 == "\n" }.reversed())
  }
}
