import Foundation
import Glibc
import HostSystem

/// What went wrong, in words.
struct BenchError: Error, CustomStringConvertible {
  /// One line, for the table.
  var summary: String
  /// All that was said, for whoever looks for the cause.
  var detail = ""

  init(_ summary: String, detail: String = "") {
    self.summary = summary
    self.detail = detail
  }

  var description: String { detail.isEmpty ? summary : "\(summary)\n\(detail)" }
}

// Other programs are run by popen(3), of all ways:
//
//  - Foundation's Process takes a program for running as long as a daemon that it left behind is there;
//  - system(3) ignores SIGINT meanwhile, so that nobody could stop a run;
//  - the pipe of popen is not used. What is said goes to a file without a name, so that a daemon holds
//    nothing of ours that somebody waits for.
//
// A script has a time limit, since it may touch a mount whose daemon is stuck; the limit ends it with
// all that it started in its own process group. And it ends when we do, however we ended.

/// Other programs: run to their end, or found.
enum Tool {
  /// Runs a script of bash that has to succeed within `limit` seconds, and gives what it printed.
  @discardableResult
  static func run(_ script: String, in directory: String = "/", limit: Int = 60) throws -> String {
    let output = try namelessFile()
    let whole = "export LC_ALL=C\ncd \(ShellWord(directory))\n\(script)"
    // Errors go with the output: a script that fails is told with all that it said.
    let command =
      "exec setpriv --pdeathsig TERM timeout -k 5 \(limit) bash -e -o pipefail -c"
      + " \(ShellWord(whole)) > /proc/\(getpid())/fd/\(output.raw) 2>&1 < /dev/null"
    // Alive: the stream is this function's own, from here to pclose.
    guard let stream = unsafe popen(command, "re") else {
      throw SystemError(call: "popen", number: errno)
    }
    let status = unsafe pclose(stream)
    let text = try contents(of: output.raw)
    if status == 0 { return text }
    let code = status >> 8 & 0xff
    // What is indented belongs to the line above it.
    let last = text.split(separator: "\n").last { $0.first?.isWhitespace == false }
    let summary =
      code == 124 || code == 137 ? "took more than \(limit) s" : last.map(String.init)
    throw BenchError(summary ?? "exit status \(code)", detail: "\(script)\n\(text)")
  }

  /// Runs a script, and gives the seconds that it took, without the shell's own start.
  static func seconds(
    of script: String, in directory: String, limit: Int = 120
  ) throws -> Double {
    let text = try run(
      """
      begin=$EPOCHREALTIME
      \(script)
      echo "$begin $EPOCHREALTIME"
      """, in: directory, limit: limit)
    let times = text.split(separator: "\n").last?.split(separator: " ").compactMap { Double($0) }
    guard let times, times.count == 2 else { throw BenchError("no times", detail: text) }
    return times[1] - times[0]
  }

  /// The process id that a file holds.
  static func process(from file: String) throws -> Int32 {
    let text = try String(contentsOfFile: file, encoding: .utf8)
    guard let process = Int32(text.prefix { $0.isNumber }) else {
      throw BenchError("\(file) holds no process id: \(text)")
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

  private static func namelessFile() throws -> OwnedDescriptor {
    let name = FileManager.default.temporaryDirectory.appendingPathComponent(UUID().uuidString).path
    let file = try SystemCall.open(name, flags: O_RDWR | O_CREAT | O_EXCL, mode: 0o600)
    try SystemCall.unlink(name)
    return file
  }

  /// The whole of a small file, as text.
  static func contents(of file: Int32) throws -> String {
    var text: [UInt8] = []
    var bytes = [UInt8](repeating: 0, count: 65536)
    while true {
      var span = bytes.mutableRawSpan
      let count = try SystemCall.read(file, into: &span, at: UInt64(text.count))
      if count == 0 { return String(decoding: text, as: UTF8.self) }
      text += bytes[..<count]
    }
  }
}
