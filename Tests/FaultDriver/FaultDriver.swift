// Fails every system call of the block leg, one at a time, and looks at what becomes of the disk.
//
//     trial run      counts the calls of a workload, and notes which functions led to each
//     for each call and each fault that makes sense for it
//         files put back; workload with that one call failed; whoever meets the error tries again
//         every acknowledged byte right at once, after it was tried again, and opened anew
//         no damage by chainfs' own check and by qemu-img's; no files left behind
//
//     FaultDriver DIRECTORY [brief|all [SCENARIO [CALL FAULT]]]
//
// `brief` fails each site once with EIO and once with the other faults, wherever its calls are by chance;
// `all` fails every call in every way. With a call's number and a fault just that one is run. What is
// printed is for a program: lines of `site`, `hit`, `runs` and `finding`, with tabs.

import CFaults
import Foundation
import TestSupport

/// Prints a line at once: a run may end the program.
func say(_ line: String) { FileHandle.standardOutput.write(Data((line + "\n").utf8)) }

@main
struct FaultDriver {
  static func main() throws {
    let words = CommandLine.arguments
    guard words.count >= 2 else { throw CommandFailure(description: "a directory is missing") }
    let isBrief = words.count < 3 || words[2] == "brief"
    let only = words.count > 3 ? words[3] : nil
    var random = Seed.generator("FaultDriver")
    var seen: Set<String> = []
    for scenario in Scenario.all where only == nil || only == scenario.name {
      let trial = try Trial(scenario, in: words[1])
      if words.count > 5, let position = Int(words[4]), let fault = Fault(rawValue: words[5]) {
        try trial.run(position, fault, withQEMU: true)
      } else if isBrief {
        try trial.runBrief(&seen, &random)
      } else {
        try trial.runAll()
      }
      trial.report()
    }
  }
}

/// One scenario, with the sites that its calls are made at.
final class Trial {
  private let scenario: Scenario
  private let work: Workspace
  private var start: Expectation
  private var sites: [Site] = []
  private var hits: [Site: [String: Int]] = [:]
  private var count = 0
  private var findings: [String] = []

  init(_ scenario: Scenario, in directory: String) throws {
    self.scenario = scenario
    work = try Workspace(
      directory: URL(fileURLWithPath: directory).resolvingSymlinksInPath().path,
      script: scenario.script)
    if scenario.isRelative {
      _ = FileManager.default.changeCurrentDirectoryPath(work.run)
    }
    start = Expectation(bytes: [])
    start = Expectation(bytes: try startingBytes())
    if !scenario.preparation.isEmpty {
      try work.restore()
      let run = Run(scenario, work, expected: start, failing: 0, .io)
      run.go(scenario.preparation, endsInCrash: true)
      findings += run.findings
      try work.keep(from: work.run)
      start = Expectation(bytes: try startingBytes())
    }
    try work.restore()
    let run = Run(scenario, work, expected: start, failing: 0, .io)
    faults_trace(1)
    let calls = run.go(scenario.steps, endsInCrash: false)
    faults_trace(0)
    run.inspect(withQEMU: true)
    findings += run.findings
    if calls > 0 { sites = (1...calls).map(Site.traced) }
  }

  /// What QEMU reads from the images.
  private func startingBytes() throws -> [UInt8] {
    try work.restore()
    let names = scenario.steps.compactMap { step in
      if case .open(let name) = step { name } else { nil }
    }
    guard let name = names.first else { return [] }
    let format = scenario.isRaw ? "raw" : "qcow2"
    if scenario.secret != nil {
      // A new one is empty.
      return [UInt8](repeating: 0, count: 128 << 10)
    }
    // From there: QEMU looks for a data file in the working directory.
    let result = try Shell.run(
      "qemu-img convert -f \(format) -O raw \(name) ../template.flat", in: work.run)
    guard result.status == 0 else { throw CommandFailure(description: result.errorOutput) }
    return try Workspace.bytes(work.template + ".flat")
  }

  private var everything: [(position: Int, fault: Fault)] {
    sites.enumerated().flatMap { index, site in
      Fault.kinds(of: site).map { (index + 1, $0) }
    }
  }

  func runAll() throws {
    for one in everything { try run(one.position, one.fault, withQEMU: one.position % 8 == 0) }
  }

  /// Fails what was not failed in a scenario before.
  func runBrief(_ seen: inout Set<String>, _ random: inout SeededGenerator) throws {
    var extra = scenario.extraRuns
    var tries: [String: Int] = [:]
    for one in everything.shuffled(using: &random) {
      let site = sites[one.position - 1]
      let key = Self.key(site, one.fault)
      if seen.contains(key) {
        if extra == 0 || one.fault.isOvercome(at: site) { continue }
        extra -= 1
      }
      // Where threads or other processes change the order, the call of this number is another one now
      // and then.
      tries[key, default: 0] += 1
      if tries[key, default: 0] > Self.mostTries { continue }
      let hit = try run(one.position, one.fault, withQEMU: random.oneIn(4))
      if let hit { seen.insert(Self.key(hit, one.fault)) }
    }
  }

  private static let mostTries = 20

  /// Who asks for a call matters to what is done about its failure, but not to whether it is made again.
  private static func key(_ site: Site, _ fault: Fault) -> String {
    var words = [fault.rawValue, site.call, site.wrapper, site.function]
    if fault == .io { words.append(site.caller) }
    return words.joined(separator: " ")
  }

  /// Gives the site that was failed, if the call was reached.
  @discardableResult
  func run(_ position: Int, _ fault: Fault, withQEMU: Bool) throws -> Site? {
    FileHandle.standardError.write(
      Data("at \(scenario.name) call \(position) \(fault.rawValue)\n".utf8))
    try work.restore()
    let run = Run(scenario, work, expected: start, failing: position, fault)
    run.go(scenario.steps, endsInCrash: position % 2 == 0)
    if run.isVoid { return nil }
    run.inspect(withQEMU: withQEMU)
    findings += run.findings
    count += 1
    guard let site = run.site, let outcome = run.outcome else { return nil }
    hits[site, default: [:]]["\(fault.rawValue)\t\(outcome.rawValue)", default: 0] += 1
    return site
  }

  func report() {
    var seen: [Site: Int] = [:]
    for site in sites { seen[site, default: 0] += 1 }
    for (site, count) in seen.sorted(by: { $0.key < $1.key }) {
      say("site\t\(scenario.name)\t\(site.words.joined(separator: "\t"))\t\(count)")
    }
    for (site, kinds) in hits.sorted(by: { $0.key < $1.key }) {
      for (kind, count) in kinds.sorted(by: { $0.key < $1.key }) {
        say("hit\t\(scenario.name)\t\(site.words.joined(separator: "\t"))\t\(kind)\t\(count)")
      }
    }
    say("runs\t\(scenario.name)\t\(count)\t\(sites.count)")
    for finding in findings { say("finding\t\(finding)") }
  }
}
