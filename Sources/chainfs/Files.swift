internal import FoundationEssentials
internal import Glibc
internal import HostSystem
internal import SystemPackage

// The program's own file access. Control files are command interfaces: one command has to be one
// write, and a text has to come from one open, so they are not read and written through a library
// that buffers.

/// Reading and writing whole small files, and the parts of the demo's disk.
enum Files {
  /// True if the path leads to a directory.
  static func isDirectory(_ path: String) -> Bool {
    do {
      return try SystemCall.status(ofPath: path).sort == .directory
    } catch {
      return false
    }
  }

  /// True if anything is at the path.
  static func exists(_ path: String) -> Bool {
    do {
      _ = try SystemCall.status(ofPath: path)
      return true
    } catch {
      return error.kind != .notFound
    }
  }

  /// The names in a directory, without `.` and `..`.
  static func names(in path: String) throws(CommandFailure) -> [String] {
    try naming(path) { () throws(SystemError) in try SystemCall.names(inDirectory: path) }
  }

  /// The whole text of a file, from one open.
  static func text(of path: String) throws(CommandFailure) -> String {
    try naming(path) { () throws(SystemError) in
      let file = try SystemCall.open(path, flags: O_RDONLY)
      return try text(from: file.raw)
    }
  }

  /// What a file answers to a line: both through one open.
  static func answer(to line: [UInt8], from path: String) throws(CommandFailure) -> String {
    try naming(path) { () throws(SystemError) in
      let file = try SystemCall.open(path, flags: O_RDWR)
      try SystemCall.write(file.raw, line.rawSpan, at: 0)
      return try text(from: file.raw)
    }
  }

  private static func text(from descriptor: Int32) throws(SystemError) -> String {
    var text: [UInt8] = []
    while true {
      let part = try read(descriptor, count: 65536, at: text.count)
      text += part
      if part.count < 65536 { return String(decoding: text, as: UTF8.self) }
    }
  }

  /// Writes the text at once, so that it is one command.
  static func writeOnce(_ text: String, to path: String) throws(CommandFailure) {
    try naming(path) { () throws(SystemError) in
      let file = try SystemCall.open(path, flags: O_WRONLY)
      let bytes = Array(text.utf8)
      try SystemCall.write(file.raw, bytes.rawSpan, at: 0)
    }
  }

  /// Reads bytes of a disk, fewer at its end.
  static func bytes(of path: String, at offset: Int, count: Int) throws(CommandFailure) -> [UInt8] {
    try naming(path) { () throws(SystemError) in
      let file = try SystemCall.open(path, flags: O_RDONLY)
      return try read(file.raw, count: count, at: offset)
    }
  }

  /// Writes bytes of a disk and returns when they are durable.
  static func writeDurably(
    _ bytes: [UInt8], to path: String, at offset: Int
  ) throws(CommandFailure) {
    try naming(path) { () throws(SystemError) in
      let file = try SystemCall.open(path, flags: O_WRONLY)
      try SystemCall.write(file.raw, bytes.rawSpan, at: UInt64(offset))
      try SystemCall.synchronize(file.raw)
    }
  }

  /// Runs system calls, and names the path in what goes wrong.
  static func naming<Result: ~Copyable>(
    _ path: String, _ body: () throws(SystemError) -> Result
  ) throws(CommandFailure) -> Result {
    do {
      return try body()
    } catch {
      throw CommandFailure("\(path): \(error.reason)")
    }
  }

  private static func read(
    _ descriptor: Int32, count: Int, at offset: Int
  ) throws(SystemError) -> [UInt8] {
    var bytes = [UInt8](repeating: 0, count: count)
    var span = bytes.mutableRawSpan
    let length = try SystemCall.read(descriptor, into: &span, at: UInt64(offset))
    bytes.removeLast(count - length)
    return bytes
  }
}

/// Paths that go to a process with another current directory.
enum AbsolutePath {
  /// The path from the root, symlinks as they are.
  static func of(_ path: String) throws -> String {
    if path.hasPrefix("/") { return path }
    let current = FileManager.default.currentDirectoryPath
    guard !current.isEmpty else {
      throw CommandFailure("\(path): the current directory is gone, give an absolute path")
    }
    var rest = Substring(path)
    while rest.hasPrefix("./") { rest = rest.dropFirst(2).drop { $0 == "/" } }
    if rest == "." || rest.isEmpty { return current }
    return current == "/" ? "/" + rest : current + "/" + rest
  }
}
