import Foundation
import HostSystem
import TestSupport
import Testing

// Kills at random moments. What a kill may take is what nobody asked to be durable; all else is there
// after the next mount:
//
//     half of the disk   written by threads of ours, which note what fsync acknowledged
//     other half         written by fio, which verifies what it reads back while the daemon lives
//     meanwhile          a stream to the bottom or to a base, or a live snapshot, or nothing
//
// A kill in the middle of a snapshot leaves its file or not. A file that is whole is the top from then
// on: it reads as the image below it until something is written, which comes only after it is durable.

extension MountTests {
  @Suite("Kill soak", .serialized, .timeLimit(.minutes(60)))
  struct KillSoakTests {
    /// Kills on each file system; the long form is `CHAINFS_KILLS=200`.
    static let kills =
      ProcessInfo.processInfo.environment["CHAINFS_KILLS"].flatMap { Int($0) } ?? 4

    @Test(
      "no acknowledged write is lost, no image is corrupt, and jobs go on, however often it is killed",
      arguments: ["ext4", "xfs"])
    func soak(fileSystem: String) throws {
      guard ToolAvailability.has("mkfs.\(fileSystem)") else { return }
      let box = try Sandbox()
      try box.run(
        """
        truncate -s 3G disk; mkfs.\(fileSystem) -q disk; mkdir images; mount -o loop disk images
        cd images
        qemu-img create -q -f qcow2 0.qcow2 96M; qemu-io -f qcow2 -c 'write -q -P 85 0 96M' 0.qcow2
        qemu-img create -q -f qcow2 -b 0.qcow2 -F qcow2 1.qcow2
        """)
      var soak = KillSoak(box: box, seed: Seed.of("soak on \(fileSystem)"))
      for round in 1...max(Self.kills, 1) { try soak.round(round) }
      try soak.end()
      print("\(fileSystem): \(soak.counts)")
      #expect(soak.counts.lost == 0)
      #expect(soak.counts.corruptions == 0)
      #expect(soak.counts.notResumed == 0)
    }
  }
}

/// One disk, its kills, and what came of them.
struct KillSoak {
  struct Counts: CustomStringConvertible {
    var kills = 0
    var acknowledged = 0
    var lost = 0
    var corruptions = 0
    var jobsLeft = 0
    var notResumed = 0
    var snapshots = 0
    var snapshotsCut = 0
    var streamsDone = 0

    var description: String {
      """
      \(kills) kills, \(acknowledged) acknowledged writes, \(lost) lost, \(corruptions) corruptions; \
      \(jobsLeft) jobs left running, \(notResumed) of them not resumed; \(streamsDone) streams completed, \
      \(snapshots) snapshots made, \(snapshotsCut) cut short by the kill
      """
    }
  }

  static let blocks = 12288
  let box: Sandbox
  var random: SeededGenerator
  var counts = Counts()
  private var top = 1
  private var newest = 1
  private let markers = Markers(blocks: blocks)

  init(box: Sandbox, seed: UInt64) {
    self.box = box
    random = SeededGenerator(seed: seed)
  }

  mutating func round(_ number: Int) throws {
    try mount(options: "")
    let process = try #require(Int32(try box.run("chainfs status --pid mnt")))
    let load = try RunningCommand([
      "fio", "--name=load", "--filename=\(box.device)", "--offset=48M", "--size=48M",
      "--rw=randwrite", "--bsrange=4k-64k", "--verify=crc32c", "--verify_backlog=32",
      "--verify_fatal=1", "--fsync=8", "--time_based", "--runtime=60", "--ioengine=psync",
      "--direct=\(number % 2)", "--randseed=\(random.next() % 100_000)", "--verify_state_save=0",
    ])
    let writers = try (0..<3).map {
      try markers.writer(number: $0, path: box.device, seed: random.next())
    }
    let event = try start(number)
    usleep(
      random.oneIn(4)
        ? UInt32.random(in: 0..<60_000, using: &random)
        : UInt32.random(in: 0..<1_500_000, using: &random))
    kill(process, SIGKILL)
    counts.kills += 1
    for writer in writers { writer.join() }
    let said = load.wait(seconds: 1)
    let text = said.output + said.errorOutput
    #expect(!text.contains("verify:") && !text.contains("bad magic"), "round \(number): \(text)")
    let asked = event.command?.wait(seconds: 30)
    try box.run(
      """
      umount -l mnt
      until [ ! -d /proc/\(process) ] || grep -q "^State:.Z" /proc/\(process)/status; do :; done
      """)
    try choose(after: event, isDone: asked?.status == 0)
    try check("round \(number)")
  }

  mutating func end() throws {
    try mount(options: "")
    // Whatever is left of a job goes to its end now.
    try box.run(
      """
      chainfs speed mnt/vda 0 || true
      cat mnt/.jobs/vda/wait > ended || true; chainfs unmount mnt
      """, seconds: 120)
    try check("the end")
    try box.run("cd images; qemu-img check -q \(top).qcow2")
    counts.acknowledged = markers.acknowledgedCount
  }

  // MARK: - What goes on meanwhile

  private struct Event {
    var command: RunningCommand?
    var snapshot: Int?
  }

  private mutating func start(_ number: Int) throws -> Event {
    let depth = try Int(box.run("wc -l < mnt/.jobs/vda/chain")) ?? 0
    switch Int.random(in: 0..<8, using: &random) {
    case 0: return Event()
    case 1..<5 where depth < 8:
      newest += 1
      let path = "\(box.path)/images/\(newest).qcow2"
      return Event(command: try chainfs("snapshot", "\(box.device)", path), snapshot: newest)
    default:
      let base = depth > 2 && random.oneIn(3) ? ["--base", "0.qcow2"] : []
      let speed = random.oneIn(2) ? ["--speed", "\(Int.random(in: 5...60, using: &random))M"] : []
      return Event(command: try chainfs(["stream"] + base + speed + [box.device]))
    }
  }

  private func chainfs(_ words: String...) throws -> RunningCommand { try chainfs(words) }

  private func chainfs(_ words: [String]) throws -> RunningCommand {
    try RunningCommand([Program.path] + words)
  }

  /// Which image is the top now.
  private mutating func choose(after event: Event, isDone: Bool) throws {
    guard let snapshot = event.snapshot else { return }
    // Named, since a file that the kill left without a header is a raw image to QEMU.
    let isWhole = try box.tryRun("qemu-img info -f qcow2 images/\(snapshot).qcow2").status == 0
    if isDone {
      counts.snapshots += 1
      #expect(isWhole, "a snapshot was acknowledged, and its file is no image")
    } else {
      counts.snapshotsCut += 1
    }
    if isWhole { top = snapshot }
  }

  // MARK: - After a kill

  private mutating func mount(options: String) throws {
    let record = "images/.\(top).qcow2.chainfs-job"
    let hadRecord = FileManager.default.fileExists(atPath: "\(box.path)/\(record)")
    try box.run("chainfs mount \(options) vda=images/\(top).qcow2 mnt")
    if hadRecord {
      counts.jobsLeft += 1
      let status = try box.status()
      if status["resumed"] != "yes" {
        counts.notResumed += 1
        Issue.record("a job was not resumed: \(status), \(try box.run("cat mnt/.jobs/vda/error"))")
      }
    }
    let wrong = try markers.compare(path: box.device)
    counts.lost += wrong.count
    #expect(wrong.isEmpty, "\(wrong.prefix(5))")
  }

  /// Every image of the chain, and away with those that have left it.
  private mutating func check(_ place: String) throws {
    var name = "\(top).qcow2"
    var chain: Set<String> = []
    while !name.isEmpty, chain.count < 100 {
      chain.insert(name)
      let said = try box.tryRun("cd images; qemu-img check --output=json \(name)")
      if (said.status != 0 && said.status != 3) || said.output.contains("\"corruptions\"") {
        counts.corruptions += 1
        Issue.record("\(place): \(name): \(said.output)\(said.errorOutput)")
      }
      name = try box.run(
        "cd images; qemu-img info \(name) | sed -n 's/^backing file: \\([^ ]*\\).*/\\1/p'")
      if let slash = name.lastIndex(of: "/") { name = String(name[name.index(after: slash)...]) }
    }
    if chain.count == 1 { counts.streamsDone += 1 }
    for file in try FileManager.default.contentsOfDirectory(atPath: "\(box.path)/images")
    where file.hasSuffix(".qcow2") && !chain.contains(file) && file != "0.qcow2" {
      try FileManager.default.removeItem(atPath: "\(box.path)/images/\(file)")
    }
  }
}

/// Blocks of 4 KiB, each with a number that grows; what was written last, and what is known to be durable.
final class Markers: Sendable {
  private struct State: Sendable {
    var issued: [UInt64]
    var acknowledged: [UInt64]
    var count = 0
  }

  private static let blockBytes = 4096
  private let blocks: Int
  private let state: Monitor<State>

  init(blocks: Int) {
    self.blocks = blocks
    let zeroes = [UInt64](repeating: 0, count: blocks)
    state = Monitor(State(issued: zeroes, acknowledged: zeroes))
  }

  var acknowledgedCount: Int { state.withLock { $0.count } }

  /// A thread that writes blocks of its own, some at a time, until the device is gone.
  func writer(number: Int, path: String, seed: UInt64) throws -> Worker {
    try Worker(name: "markers") { [self] in
      var random = SeededGenerator(seed: seed)
      let file = open(path, O_RDWR)
      guard file >= 0 else { return }
      defer { close(file) }
      while true {
        var written: [(block: Int, number: UInt64)] = []
        for _ in 0..<Int.random(in: 1...6, using: &random) {
          let count = random.oneIn(3) ? Int.random(in: 2...40, using: &random) : 1
          let start = Int.random(in: 0..<blocks / 3 - count, using: &random) + number * (blocks / 3)
          let first = state.withLock { state -> UInt64 in
            let next = (state.issued[start..<start + count].max() ?? 0) + 1
            for block in start..<start + count { state.issued[block] = next }
            return next
          }
          var bytes: [UInt8] = []
          for block in start..<start + count { bytes += Self.bytes(block: block, number: first) }
          let done = pwrite(file, bytes, bytes.count, off_t(start * Self.blockBytes))
          if done != bytes.count { return }
          for block in start..<start + count { written.append((block, first)) }
        }
        if fsync(file) != 0 { return }
        let durable = written
        state.withLock { state in
          for (block, number) in durable { state.acknowledged[block] = number }
          state.count += durable.count
        }
      }
    }
  }

  /// What is not there as it should be; what is there counts as durable from now on.
  func compare(path: String) throws -> [String] {
    let file = open(path, O_RDONLY)
    guard file >= 0 else { throw CommandFailure(description: "\(path): errno \(errno)") }
    defer { close(file) }
    var wrong: [String] = []
    var bytes = [UInt8](repeating: 0, count: Self.blockBytes * 256)
    for first in stride(from: 0, to: blocks, by: 256) {
      let read = pread(file, &bytes, bytes.count, off_t(first * Self.blockBytes))
      guard read == bytes.count else {
        throw CommandFailure(description: "\(path): read \(read), errno \(errno)")
      }
      for block in first..<first + 256 {
        let start = (block - first) * Self.blockBytes
        let (number, isWhole) = bytes.withUnsafeBytes { bytes in
          let found = UnsafeRawBufferPointer(rebasing: bytes[start..<start + Self.blockBytes])
          let number = Self.number(found)
          let expected = Self.bytes(block: block, number: number)
          return (number, memcmp(expected, found.baseAddress!, Self.blockBytes) == 0)
        }
        state.withLock { state in
          let range = state.acknowledged[block]...state.issued[block]
          if isWhole, range.contains(number) {
            state.acknowledged[block] = number
            state.issued[block] = number
          } else {
            wrong.append(
              "block \(block): \(number) not in \(range), or not whole: \(isWhole)")
          }
        }
      }
    }
    return wrong
  }

  private static func bytes(block: Int, number: UInt64) -> [UInt8] {
    if number == 0 { return [UInt8](repeating: 85, count: blockBytes) }
    return [UInt8](unsafeUninitializedCapacity: blockBytes) { bytes, count in
      let words = UnsafeMutableRawBufferPointer(start: bytes.baseAddress, count: blockBytes)
      var place = 0
      while place < blockBytes {
        words.storeBytes(of: number, toByteOffset: place, as: UInt64.self)
        words.storeBytes(of: UInt64(block), toByteOffset: place + 8, as: UInt64.self)
        place += 16
      }
      count = blockBytes
    }
  }

  private static func number(_ bytes: UnsafeRawBufferPointer) -> UInt64 {
    let number = bytes.loadUnaligned(as: UInt64.self)
    return number == 0x5555_5555_5555_5555 ? 0 : number
  }
}
