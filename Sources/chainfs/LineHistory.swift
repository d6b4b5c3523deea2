internal import FoundationEssentials
internal import Glibc
internal import HostSystem

// The lines of earlier prompts, in a file of plain lines. Each line is appended when it is entered, so that
// two prompts at once lose none of each other's, and a terminal that is closed none of its own. A prompt
// that begins or ends drops what is too old. History is a comfort: where it cannot be kept there is none.

/// The lines that were typed before.
struct LineHistory {
  /// How many lines are kept.
  let limit: Int
  private let path: String?
  private static let newline = UInt8(ascii: "\n")

  /// Finds the file by the variables of the environment.
  init(limit: Int, environment: [String: String]) {
    self.limit = limit
    var directory = environment["XDG_STATE_HOME"]
    if directory?.hasPrefix("/") != true {
      directory = environment["HOME"].map { $0 + "/.local/state" }
    }
    path = directory.map { $0 + "/chainfs/history" }
  }

  /// The newest lines, oldest first; older ones are dropped from the file.
  @discardableResult
  func lines() -> [String] {
    guard let path else { return [] }
    do throws(SystemError) {
      guard let bytes = try AtomicFile.contents(of: path, limit: 16 << 20) else { return [] }
      let lines = bytes.split(separator: Self.newline)
      let kept = lines.suffix(limit)
      if kept.count < lines.count {
        try AtomicFile.replace(path: path, bytes: kept.flatMap { $0 + [Self.newline] })
      }
      return kept.map { String(decoding: $0, as: UTF8.self) }
    } catch {
      return []
    }
  }

  /// Adds a line.
  func add(_ line: String) {
    guard let path else { return }
    do {
      let directory = String(path.prefix(upTo: path.lastIndex(of: "/") ?? path.startIndex))
      if !Files.isDirectory(directory) {
        try FileManager.default.createDirectory(
          atPath: directory, withIntermediateDirectories: true,
          attributes: [.posixPermissions: 0o700])
      }
      let flags = O_WRONLY | O_CREAT | O_APPEND | O_NOFOLLOW | O_NONBLOCK
      let file = try SystemCall.open(path, flags: flags, mode: 0o600)
      // Behind whatever is there: the file is open for appending.
      try SystemCall.write(file.raw, Array((line + "\n").utf8).rawSpan, at: 0)
    } catch {
      return
    }
  }
}
