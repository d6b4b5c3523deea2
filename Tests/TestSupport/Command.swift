// Other programs, run with a time limit. Output goes to files, not pipes: a program that writes much
// must not wait for a reader that waits for its end.

import Foundation

/// What a program did.
package struct CommandResult: Sendable {
  /// Its exit status; 128 and the signal's number if one ended it.
  package var status: Int32
  /// What it wrote to its standard output.
  package var output: String
  /// What it wrote to its standard error.
  package var errorOutput: String
  /// It was ended because its time was up.
  package var ranOutOfTime: Bool
}

/// Why a program could not be run.
package struct CommandFailure: Error, CustomStringConvertible {
  /// What happened.
  package var description: String

  /// Says what happened.
  package init(description: String) {
    self.description = description
  }
}

/// A program that runs beside the test, in a process group of its own; ended with the last reference.
package final class RunningCommand: @unchecked Sendable {
  // Sendable: a test uses it from one thread at a time; the process id never changes.
  /// Its process id.
  package let process: Int32
  private let words: [String]
  private let files: TemporaryDirectory
  private var result: CommandResult?

  /// Starts a program, found by PATH, in `directory` or this process's own.
  ///
  /// With `input` its standard input is that text, else nothing.
  package init(
    _ words: [String], in directory: String? = nil, input: String? = nil,
    environment: [String: String] = [:]
  ) throws {
    let words = (directory.map { ["env", "-C", $0] } ?? []) + words
    self.words = words
    files = try TemporaryDirectory()
    try (input ?? "").write(toFile: files.file("in"), atomically: false, encoding: .utf8)
    var actions = posix_spawn_file_actions_t()
    posix_spawn_file_actions_init(&actions)
    defer { posix_spawn_file_actions_destroy(&actions) }
    posix_spawn_file_actions_addopen(&actions, 0, files.file("in"), O_RDONLY, 0)
    let write = O_WRONLY | O_CREAT | O_TRUNC
    posix_spawn_file_actions_addopen(&actions, 1, files.file("out"), write, 0o600)
    posix_spawn_file_actions_addopen(&actions, 2, files.file("err"), write, 0o600)
    var attributes = posix_spawnattr_t()
    hearEverySignal(&attributes, and: POSIX_SPAWN_SETPGROUP)
    defer { posix_spawnattr_destroy(&attributes) }
    posix_spawnattr_setpgroup(&attributes, 0)
    let merged = ProcessInfo.processInfo.environment.merging(environment) { $1 }
    var arguments: [UnsafeMutablePointer<CChar>?] = words.map { strdup($0) } + [nil]
    var variables: [UnsafeMutablePointer<CChar>?] =
      merged.map { strdup("\($0.key)=\($0.value)") } + [nil]
    defer { for string in arguments + variables { free(string) } }
    var process: pid_t = 0
    let status = posix_spawnp(&process, words[0], &actions, &attributes, &arguments, &variables)
    if status != 0 {
      throw CommandFailure(description: "\(words[0]): \(String(cString: strerror(status)))")
    }
    self.process = process
  }

  deinit {
    if result == nil { _ = end() }
  }

  /// What it has written to its standard output so far.
  package var outputSoFar: String { text("out") }
  /// What it has written to its standard error so far.
  package var errorOutputSoFar: String { text("err") }

  /// Waits for its end, and ends it and its children when the time is up.
  package func wait(seconds: Double) -> CommandResult {
    if let result { return result }
    let limit = Date().addingTimeInterval(seconds)
    var status: Int32 = 0
    while waitpid(process, &status, WNOHANG) == 0 {
      if Date() > limit {
        kill(-process, SIGKILL)
        waitpid(process, &status, 0)
        return finish(status, ranOutOfTime: true)
      }
      usleep(2000)
    }
    return finish(status, ranOutOfTime: false)
  }

  /// Ends it and its children at once.
  package func end(signal: Int32 = SIGKILL) -> CommandResult {
    if let result { return result }
    kill(-process, signal)
    return wait(seconds: 10)
  }

  private func finish(_ status: Int32, ranOutOfTime: Bool) -> CommandResult {
    let code = status & 0x7f == 0 ? (status >> 8) & 0xff : 128 + (status & 0x7f)
    let result = CommandResult(
      status: code, output: text("out"), errorOutput: text("err"), ranOutOfTime: ranOutOfTime)
    self.result = result
    return result
  }

  private func text(_ name: String) -> String {
    let data = FileManager.default.contents(atPath: files.file(name)) ?? Data()
    return String(decoding: data, as: UTF8.self)
  }
}

/// Runs a program to its end, or ends it and its children after `seconds`.
@discardableResult
package func run(
  _ words: String..., input: String? = nil, environment: [String: String] = [:],
  seconds: Double = 30
) throws -> CommandResult {
  try run(words, input: input, environment: environment, seconds: seconds)
}

/// Runs a program to its end, or ends it and its children after `seconds`.
@discardableResult
package func run(
  _ words: [String], in directory: String? = nil, input: String? = nil,
  environment: [String: String] = [:], seconds: Double = 30
) throws -> CommandResult {
  var result: CommandResult
  var tries = 0
  repeat {
    result = try RunningCommand(
      words, in: directory, input: input, environment: environment
    ).wait(seconds: seconds)
    tries += 1
    // QEMU says so when it makes an encrypted image on a busy machine.
  } while words.first == "qemu-img" && tries < Shell.keyTries
    && result.errorOutput.contains("Unable to get accurate CPU usage")
  return result
}

/// Runs a program that must succeed; gives its standard output.
@discardableResult
package func runSuccessfully(
  _ words: String..., input: String? = nil, seconds: Double = 30
) throws -> String {
  try runSuccessfully(words, input: input, seconds: seconds)
}

/// Runs a program that must succeed; gives its standard output.
@discardableResult
package func runSuccessfully(
  _ words: [String], in directory: String? = nil, input: String? = nil, seconds: Double = 30
) throws -> String {
  let result = try run(words, in: directory, input: input, seconds: seconds)
  if result.status != 0 {
    let line = words.joined(separator: " ")
    throw CommandFailure(
      description: "\(line): status \(result.status)\n\(result.output)\(result.errorOutput)")
  }
  return result.output
}
