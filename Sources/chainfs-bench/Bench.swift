import ArgumentParser
import Foundation

// What chainfs reaches beside its peers on the same work.
//
// Figures of one machine say little about another, and on a shared one they move from minute to minute.
// So every row is measured for all peers in turns (chainfs, raw, QEMU, chainfs, raw, QEMU ...), and
// what is printed is the median of the turns with its spread, and ratios of medians of the same run.
//
//     row         the work: a chain of images, and a fio job or a loop of its own
//     peer        who serves the images as a flat file: chainfs, the raw file itself, QEMU
//     turn        serve, warm up, measure, unmount; the files are made anew where a row fills them
//     goal        what chainfs must reach in a row, beside a peer or a limit

/// The benchmark program.
@main
struct Bench: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "chainfs-bench",
    abstract: "Measures chainfs beside the raw file and QEMU's exports, on the same work in turns.",
    discussion: """
      Peers that are not installed are left out. chainfs is mounted with its defaults, but for direct \
      writes with cache=none. Needs root (mounts), fio, qemu-img and qemu-io, 9 GiB of memory and as much \
      on the disk; with --quick 5 GiB and less than three minutes. Every figure is the median of the \
      turns, with half the range between its quartiles; a ratio compares medians of this run. What must \
      be reached stands below, with what was.
      """)

  @Flag(help: "One short turn of each, without nbdfuse and rows that take long: for a first look.")
  var quick = false

  @Option(help: "How many turns each peer gets (default 5, quick 1).")
  var turns: Int?

  @Option(name: .customLong("row"), help: "Only rows whose name contains this; may be repeated.")
  var rows: [String] = []

  @Option(help: "The chainfs to measure; by default the one beside this program.")
  var chainfs: String?

  @Option(
    name: .customLong("storage-daemon"),
    help: "A qemu-storage-daemon to measure; may be repeated. By default the one in PATH.")
  var storageDaemons: [String] = []

  @Option(help: "Where images in memory go: a tmpfs.")
  var scratch = "/dev/shm"

  @Option(help: "Where images on disk go.")
  var disk = "/var/tmp"

  @Option(help: "text, markdown or json.")
  var format = Report.Format.text

  @Flag(help: "Lists the rows and ends.")
  var list = false

  func validate() throws {
    if let turns, turns < 1 { throw ValidationError("--turns takes 1 or more, not \(turns)") }
  }

  func run() throws {
    if list {
      for row in Row.all { print(row.parts.map(\.name).joined(separator: "\n")) }
      return
    }
    let selected = Row.all.filter { row in
      rows.isEmpty ? !(quick && row.isLong) : rows.contains(where: row.matches)
    }
    if selected.isEmpty {
      throw ValidationError("no row is called that; --list names them")
    }
    let peers = try Peers(
      chainfs: chainfs, storageDaemons: storageDaemons, measuresNBD: !quick)
    let plan = Plan(turns: turns ?? (quick ? 1 : 5), isQuick: quick)
    var results = Results(plan: plan)
    for row in selected {
      Tool.say("\(row.parts[0].name) ...")
      results.lines += row.measure(
        peers.all, plan, in: row.place == .memory ? scratch : disk)
    }
    print(try Report(results).text(format))
    // Peers may fail; chainfs may not.
    if results.lines.contains(where: { $0.failures.contains { $0.peer == ChainfsPeer.kind } }) {
      throw ExitCode.failure
    }
  }
}

/// How much work a run does.
struct Plan: Codable {
  /// Turns of each peer.
  var turns: Int
  /// Shorter turns on smaller images, for a first look.
  var isQuick: Bool

  /// Seconds that one measurement takes.
  var seconds: Double { isQuick ? 0.7 : 3 }
  /// Seconds that a run takes which does not count.
  var warmUpSeconds: Double { isQuick ? 0.5 : 1 }
  /// Seconds that a guest reads before and during a stream.
  var guestSeconds: Double { isQuick ? 0.5 : 1 }
  /// MiB of a disk.
  var diskSize: Int { isQuick ? 256 : 1024 }
  /// MiB of a disk whose stream takes longer than a guest reads.
  var largeDiskSize: Int { isQuick ? 2048 : 4096 }
}
