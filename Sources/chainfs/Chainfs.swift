internal import ArgumentParser
internal import Glibc

// The program. Every command is a `ParsableCommand` in its own file; here is what they share: the
// way out. Exit status 0 is done, 1 is a failure with its reason on stderr, 64 is wrong usage
// (ArgumentParser's own EX_USAGE). `check` alone has more to tell, see its file.

/// A command failed; the sentence is what the user reads after `chainfs: `.
struct CommandFailure: Error, CustomStringConvertible {
  var description: String

  init(_ description: String) {
    self.description = description
  }
}

@main
struct Chainfs: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "chainfs",
    abstract: "Mounts qcow2 backing chains as flat raw files and streams them while in use.",
    subcommands: [
      Mount.self, Unmount.self, Status.self, Stream.self, Cancel.self, Speed.self, Pause.self,
      Resume.self, Finalize.self, Dismiss.self, Stop.self, Cont.self, Snapshot.self, Info.self,
      Check.self, Map.self, Create.self, HumanMonitor.self, Demo.self,
    ])

  static func main() {
    Processes.fillStandardStreams()
    // An image that a limit (ulimit -f) keeps from growing is an error of its write, not the end.
    signal(SIGXFSZ, SIG_IGN)
    do {
      var command = try parseAsRoot()
      do {
        try command.run()
      } catch let status as ExitCode {
        exit(withError: status)
      } catch {
        // A call for help is a command of the parser's that fails, with a status of its own.
        if exitCode(for: error) != .failure { exit(withError: error) }
        // Every error of the project describes itself in a sentence.
        Terminal.complain("\(error)")
        exit(withError: ExitCode.failure)
      }
    } catch {
      exit(withError: error)
    }
  }
}
