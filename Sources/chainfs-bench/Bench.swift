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
//     turn        serve, warm up, measure, unmount; the files are made anew only where a row writes

/// The benchmark program.
@main
struct Bench: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "chainfs-bench",
    abstract: "Measures chainfs beside the raw file and QEMU's exports, on the same work in turns.",
    discussion: """
      Peers that are not installed are left out. Needs root (mounts), fio and qemu-img. Every figure \
      is the median of the turns, with half the range between its quartiles; a ratio compares medians \
      of this run.
      """)

  @Flag(help: "One short turn of each, without the rows that take long: for a first look.")
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
  var format = Table.Format.text

  @Flag(help: "Lists the rows and ends.")
  var list = false

  func validate() throws {
    if let turns, turns < 1 { throw ValidationError("--turns takes 1 or more, not \(turns)") }
  }

  func run() throws {
    let selected = Row.all.filter { row in
      rows.isEmpty ? !(quick && row.isLong) : rows.contains { row.name.contains($0) }
    }
    if list {
      for row in Row.all { print(row.name) }
      return
    }
    if selected.isEmpty {
      throw ValidationError("no row is called that; --list names them")
    }
    let peers = try Peers(chainfs: chainfs, storageDaemons: storageDaemons)
    let plan = Plan(
      turns: turns ?? (quick ? 1 : 5), seconds: quick ? 1 : 3, isQuick: quick)
    var table = Table(peers: peers.all.map(\.name), plan: plan)
    for row in selected {
      Tool.say("\(row.name) ...")
      let directory = try WorkDirectory(in: row.place == .memory ? scratch : disk)
      table.add(row, try row.measure(peers.all, plan, directory.path))
    }
    print(try table.text(format))
  }
}

/// How much work a run does.
struct Plan: Codable {
  /// Turns of each peer.
  var turns: Int
  /// Seconds that one measurement takes.
  var seconds: Int
  /// Smaller images, for a first look.
  var isQuick: Bool

  /// MiB of a disk.
  var diskSize: Int { isQuick ? 256 : 1024 }
}
