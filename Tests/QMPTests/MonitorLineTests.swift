import Control
import Testing

@testable import QMP

/// What QEMU 7.2 prints for the same lines was looked at for each of them.
@Suite struct MonitorLineTests {
  private static func stream(
    _ device: String, speed: Int64 = 0, base: String? = nil
  ) -> MonitorLine {
    var order = StreamOrder(device: device)
    order.jobID = device
    order.speed = speed
    order.base = base
    return .stream(order)
  }

  private static func snapshot(
    _ device: String, _ file: String, format: String = "qcow2",
    mode: SnapshotOrder.Mode = .absolutePaths
  ) -> MonitorLine {
    var order = SnapshotOrder(device: device, file: file)
    order.format = format
    order.mode = mode
    return .snapshot(order)
  }

  @Test(
    "lines are understood as QEMU understands them",
    arguments: [
      ("", .text("")), ("  \t", .text("")),
      ("info block-jobs", .blockJobs), ("  info   block-jobs  ", .blockJobs),
      ("info block", .block(BlockQuestion(name: nil))),
      ("info block vda", .block(BlockQuestion(name: "vda"))),
      ("info block -v", .block(BlockQuestion(name: nil, isVerbose: true))),
      ("info block -n -v x", .block(BlockQuestion(name: "x", ofNodes: true, isVerbose: true))),
      ("info block -nv", .block(BlockQuestion(name: "v", ofNodes: true))),
      ("info status", .status), ("stop", .stop), ("s", .stop), ("cont", .cont), (" c ", .cont),
      ("quit", .quit), ("q", .quit),
      ("block_resize vda 17", .resize(device: "vda", size: 17 << 20)),
      ("block_resize vda 512b", .resize(device: "vda", size: 512)),
      ("block_stream -a vda", stream("vda")), ("block_stream -a", stream("-a")),
      ("block_stream -", stream("-")), ("block_stream vda +1", stream("vda", speed: 1 << 20)),
      ("block_stream vda", stream("vda")), ("block-stream vda", stream("vda")),
      ("block_stream vda 1", stream("vda", speed: 1 << 20)),
      ("block_stream vda 0.5k", stream("vda", speed: 512)),
      ("block_stream vda 1x", stream("vda", speed: 1 << 20, base: "x")),
      ("block_stream vda 2G base.qcow2", stream("vda", speed: 2 << 30, base: "base.qcow2")),
      ("block_stream vda 0 \"a b\\\"c\"", stream("vda", base: "a b\"c")),
      ("block_stream 'vda'", stream("'vda'")),
      ("snapshot_blkdev vda /a/b", snapshot("vda", "/a/b")),
      ("snapshot_blkdev vda /a/b raw", snapshot("vda", "/a/b", format: "raw")),
      ("snapshot_blkdev -n vda /a/b", snapshot("vda", "/a/b", mode: .existing)),
      ("block_job_set_speed vda 0x10", .act(.setSpeed(16 << 20), job: "vda")),
      ("block_job_set_speed vda 1B", .act(.setSpeed(1), job: "vda")),
      ("block_job_cancel vda", .act(.cancelUnlessPaused, job: "vda")),
      ("block_job_cancel -f vda", .act(.cancel, job: "vda")),
      ("block_job_pause vda", .act(.pause, job: "vda")),
      ("block_job_resume vda", .act(.resume, job: "vda")),
      ("block_job_complete vda", .act(.complete, job: "vda")),
      ("snapshot_blkdev vda", .text("Error: Parameter 'snapshot-file' is missing\n")),
      ("nope", .text("unknown command: 'nope'\n")),
      ("info nope", .text("unknown command: 'info nope'\n")),
      ("help nope", .text("unknown command: 'nope'\n")),
      ("help info nope", .text("unknown command: 'info nope'\n")),
      ("help help", .text("help|? [cmd] -- show the help\n")),
      ("help c", .text("cont|c  -- resume emulation\n")),
      ("? block_job_pause", .text(MonitorCommand.blockJobPause.usage)),
      ("help info block-jobs", .text(MonitorCommand.Subject.blockJobs.usage)),
    ] as [(String, MonitorLine)])
  func understood(line: String, meaning: MonitorLine) {
    #expect(MonitorLine(line) == meaning)
  }

  @Test(
    "a line that is wrong says what was expected",
    arguments: [
      ("block_stream", "block_stream: block device name expected"),
      ("block_stream vda -1", "invalid size"), ("block_stream vda 10000P", "invalid size"),
      ("block_stream vda 1 a b", "block_stream: extraneous characters at the end of line"),
      ("block_stream vda 1 \"a b", "block_stream: string expected"),
      ("block_stream vda 1 \"a\\x\"", "block_stream: string expected"),
      ("block_job_cancel", "block_job_cancel: block device name expected"),
      ("block_job_cancel -x vda", "block_job_cancel: unsupported option -x"),
      (
        "block_job_cancel -fx vda",
        "block_job_cancel: extraneous characters at the end of line"
      ),
      ("block_job_set_speed vda", "invalid size"), ("block_job_set_speed vda 8E", "invalid size"),
      (
        "block_job_set_speed vda 1e3",
        "block_job_set_speed: extraneous characters at the end of line"
      ),
      ("block_job_set_speed vda \"5\"", "invalid size"),
      ("snapshot_blkdev", "snapshot_blkdev: block device name expected"),
      ("info block-jobs x", "block-jobs: extraneous characters at the end of line"),
      ("info block vda x", "block: extraneous characters at the end of line"),
      ("info block -q", "block: unsupported option -q"),
      ("info status x", "status: extraneous characters at the end of line"),
      ("stop x", "stop|s: extraneous characters at the end of line"),
      ("s x", "stop|s: extraneous characters at the end of line"),
      ("q x", "quit|q: extraneous characters at the end of line"),
      ("block_resize vda", "invalid size"), ("block_resize vda -1", "invalid size"),
      ("block_stream -x vda", "invalid size"), ("block_stream vda 0x1.5", "invalid size"),
    ])
  func wrong(line: String, complaint: String) {
    let words = line.split(separator: " ")
    let topic = words[0] == "info" ? words.prefix(2).joined(separator: " ") : String(words[0])
    #expect(
      MonitorLine(line)
        == .text("\(complaint)\nTry \"help \(topic)\" for more information\n"))
  }

  @Test("help tells of every command once")
  func help() {
    guard case .text(let text) = MonitorLine("help") else {
      Issue.record("help is no text")
      return
    }
    for command in MonitorCommand.allCases {
      #expect(text.ranges(of: "\(command.listing)").count == 1)
      #expect(text.contains("\(command.rawValue)"))
    }
  }

  @Test(
    "sizes are MiB, or what their suffix says",
    arguments: [
      ("0", 0, 1), ("1", 1 << 20, 1), ("1k", 1 << 10, 2), ("1K ", 1 << 10, 2), ("1.5M", 3 << 19, 4),
      ("5.5.5", 11 << 19, 3), ("+5k", 5 << 10, 3), ("1e2", 1 << 60, 2), ("1.e2", 1 << 60, 3),
      ("1.5Ex", 3 << 59, 4), (String(repeating: "0", count: 99) + "1b", 1, 101),
      ("7E", 7 << 60, 2), ("8796093022207", Int64.max - (1 << 20) + 1, 13),
      ("0x1f", 31 << 20, 4), ("0x1g", 1 << 30, 4), ("+0X10K", 16 << 10, 6),
      ("0x1be", 0x1be << 20, 5), ("2KB", 2 << 10, 2), ("1.b", 1, 3),
      ("0xz", 0, 1),
    ] as [(String, Int64, Int)])
  func sizes(text: String, bytes: Int64, length: Int) {
    let size = MonitorSize.prefix(of: Substring(text).utf8)
    #expect(size?.bytes == bytes && size?.length == length)
  }

  @Test(
    "what is no size, or too large, is none",
    arguments: [
      "", "k", "-5", "+", "++5", "+-5", "+.5", "1.5e2", "1.5E-2", "0x1.", "0x1.k", ".5", "8E",
      "8796093022208", "9999999999999999999999", "1.5b", "nan",
    ])
  func noSize(text: String) {
    #expect(MonitorSize.prefix(of: Substring(text).utf8) == nil)
  }
}
