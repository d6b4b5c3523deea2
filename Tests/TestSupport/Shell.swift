import Foundation

/// Runs scripts the way a user does, with the program under test first in PATH.
package enum Shell {
  // QEMU times its key derivation when it makes an encrypted image, and gives up where a busy
  // machine's clocks make no sense to it: one try in four beside five busy processes.
  static let keyTries = 60
  private static let again = """
    again() { for i in {1..\(keyTries)}; do "$@" && return; sleep 0.1; done; return 1; }
    """

  /// Runs a script in a directory; the status is whatever it is.
  ///
  /// Scripts have a function `again COMMAND...` for what may fail on a busy machine.
  package static func run(
    _ script: String, in directory: String, shell: String = "/bin/bash", seconds: Double = 60
  ) throws -> CommandResult {
    let path = ProcessInfo.processInfo.environment["PATH"] ?? "/usr/bin:/bin"
    return try TestSupport.run(
      [shell, "-c", "cd '\(directory)' || exit 125\n\(again)\n" + script],
      environment: ["PATH": "\(Program.directory):\(path):/usr/sbin:/sbin", "LC_ALL": "C"],
      seconds: seconds)
  }
}

/// The program under test.
package enum Program {
  /// Where it is: CHAINFS_BINARY, or the build that these tests belong to.
  package static let path: String = {
    if let path = ProcessInfo.processInfo.environment["CHAINFS_BINARY"] { return path }
    let words = CommandLine.arguments
    for word in words where word.contains(".xctest") {
      if let end = word.range(of: "/", options: .backwards) {
        return word[..<end.lowerBound] + "/chainfs"
      }
    }
    return URL(fileURLWithPath: words[0]).deletingLastPathComponent().path + "/chainfs"
  }()

  package static var directory: String {
    URL(fileURLWithPath: path).deletingLastPathComponent().path
  }

  /// The top of the project.
  package static var project: String {
    var url = URL(fileURLWithPath: #filePath)
    for _ in 0..<3 { url.deleteLastPathComponent() }
    return url.path
  }
}

/// What tests with real mounts need of the machine.
package enum Requirements {
  /// True where mounts can be tested. Under CI=true always: there, what is missing has to show.
  package static let areMet: Bool =
    ProcessInfo.processInfo.environment["CI"] == "true"
    || FileManager.default.fileExists(atPath: "/dev/fuse") && geteuid() == 0
      && ToolAvailability.has([
        "qemu-img", "qemu-io", "fio", "debugfs", "e2fsck", "losetup", "fusermount3",
      ])
}
