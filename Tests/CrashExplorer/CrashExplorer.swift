import ArgumentParser
import Foundation
import HostSystem
import TestSupport

/// Looks at what crashes leave, many of them, at every write and every flush of seeded workloads.
@main
struct CrashExplorer: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "crash-explorer",
    abstract: "Crash simulated disks at every write and flush, and judge what is left.")

  @Option(help: "How many states to look at.") var states = 20_000
  @Option(help: "The seed of the run; a new one each time if it is not given.") var seed: UInt64?
  @Option(help: "How many threads work, and as many judge; one for each processor if not given.")
  var threads: Int?
  @Option(help: "Look at this state only, as a failure names it.") var state: StateName?
  @Option(help: "Use one shape of images only.") var shape: Int?
  @Option(help: "Write the files of the one state to this directory.") var save: String?
  @Flag(help: "List the shapes of images and do nothing.") var shapes = false

  func run() throws {
    if shapes {
      for number in 0..<Shape.count { say(Shape(number).name) }
      return
    }
    try hashAlike()
    let explorer = Explorer(
      Explorer.Wishes(
        states: states, seed: seed ?? UInt64.random(in: 0...UInt64(UInt32.max)),
        threads: threads ?? ProcessInfo.processInfo.activeProcessorCount, only: state,
        shape: shape, saved: save))
    say("seed \(explorer.seed)")
    let clock = SystemTimeSource()
    let start = clock.now()
    let judged = try explorer.run()
    let seconds = Double(clock.now().nanoseconds(since: start)) / 1e9
    explorer.tally.report()
    let failures = explorer.tally.failureCount
    let rate = Int(Double(judged) / max(seconds, 0.001))
    say(
      "\nseed \(explorer.seed): \(judged) states in \(Int(seconds)) s, \(rate) a second, "
        + "\(failures) failed")
    if failures > 0 || judged == 0 { throw ExitCode.failure }
  }

  /// Sets and dictionaries have one order in all runs, so that a state can be had again.
  private func hashAlike() throws {
    let name = "SWIFT_DETERMINISTIC_HASHING"
    if getenv(name) != nil { return }
    setenv(name, "1", 1)
    var arguments = CommandLine.arguments.map { strdup($0) } + [nil]
    execv("/proc/self/exe", &arguments)
    throw CommandFailure(description: "the program cannot start itself anew")
  }
}
