import Glibc
import HostSystem
import TestSupport
import Testing

/// A running program, with every signal at its default and none blocked.
final class Program {
  private let process: pid_t
  private let output: String

  /// Starts `arguments`, the first of which is a path. What it prints goes to a temporary file.
  init(_ arguments: [String]) throws {
    var template = Array("/tmp/chainfs-fuse-output-XXXXXX".utf8CString)
    let made = template.withUnsafeMutableBufferPointer { mkstemp($0.baseAddress!) }
    try #require(made >= 0)
    close(made)
    output = String(decoding: template.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)

    var actions = posix_spawn_file_actions_t()
    posix_spawn_file_actions_init(&actions)
    defer { posix_spawn_file_actions_destroy(&actions) }
    posix_spawn_file_actions_addopen(&actions, STDOUT_FILENO, output, O_WRONLY | O_TRUNC, 0)
    posix_spawn_file_actions_addopen(&actions, STDERR_FILENO, "/dev/null", O_WRONLY, 0)

    var attributes = posix_spawnattr_t()
    hearEverySignal(&attributes)
    defer { posix_spawnattr_destroy(&attributes) }

    var words: [UnsafeMutablePointer<CChar>?] = arguments.map { strdup($0) } + [nil]
    defer { for word in words { free(word) } }
    var started = pid_t()
    let status = posix_spawn(&started, arguments[0], &actions, &attributes, &words, environ)
    try #require(status == 0)
    process = started
  }

  func send(_ signal: Int32) { kill(process, signal) }

  /// How a program ended, and what it printed.
  struct Outcome: Equatable {
    var exit: Int32?
    var signal: Int32?
    var text = ""
  }

  func wait() -> Outcome {
    var status: Int32 = 0
    while waitpid(process, &status, 0) < 0 && errno == EINTR {}
    var outcome = Outcome()
    // WIFEXITED and its kin are macros with arguments.
    if status & 0x7f == 0 {
      outcome.exit = status >> 8 & 0xff
    } else {
      outcome.signal = status & 0x7f
    }
    if let file = try? Descriptor(output, O_RDONLY), let bytes = try? file.read(65536) {
      outcome.text = String(decoding: bytes, as: UTF8.self)
    }
    unlink(output)
    return outcome
  }
}
