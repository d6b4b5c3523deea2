import Chain
import FoundationEssentials
import HostSystem
import Jobs
import Testing

@testable import Control
@testable import Jobs

private func job(
  _ state: JobStatus.State = .running, device: String = "vda", offset: UInt64 = 679_477_248,
  length: UInt64 = 21_474_836_480, order: UInt64 = 1
) -> JobStatus {
  JobStatus(
    device: device, id: device, state: state, stage: state == .paused ? .paused : .running,
    isResumed: false, length: length, offset: offset,
    copied: 100, zero: 20, skipped: 3, durable: 90, speed: 209_715_200, onError: .report,
    ioStatus: .ok, isBusy: true, started: WallTime(seconds: 1_700_000_000),
    order: MonotonicTime(nanoseconds: order))
}

@Suite("StatusText")
struct StatusTextTests {
  @Test("the line of a job is QEMU's, to the byte")
  func line() {
    #expect(
      StatusText.all([job()])
        == "Streaming device vda: Completed 679477248 of 21474836480 bytes, "
        + "speed limit 209715200 bytes/s\n")
    #expect(StatusText.all([]) == "No active jobs\n")
  }

  @Test("the newest job comes first")
  func order() {
    let text = StatusText.all([job(device: "a", order: 1), job(device: "b", order: 2)])
    #expect(text.hasPrefix("Streaming device b:"))
  }

  @Test("a running job shows what applies, in order")
  func running() {
    var status = job()
    status.rate = 1 << 20
    status.eta = 3661
    status.base = "/images/base.qcow2"
    #expect(
      StatusText.device(current: status, last: nil) == """
        Streaming device vda: Completed 679477248 of 21474836480 bytes, \
        speed limit 209715200 bytes/s
        state: running
        progress: 3.1
        copied: 100
        zero: 20
        skipped: 3
        durable: 90
        rate: 1.0 MiB/s
        eta: 1h 1m
        base: /images/base.qcow2
        on-error: report
        started: 2023-11-14T22:13:20Z

        """)
  }

  @Test("the last result stays below the line of no jobs")
  func last() {
    var status = job(.failed)
    status.isResumed = true
    status.ended = WallTime(seconds: 1_700_000_001)
    status.error = "vda: bad\nluck"
    let text = StatusText.device(current: nil, last: status)
    #expect(text.hasPrefix("No active jobs\nstate: failed\nresumed: yes\nprogress: 3.1\n"))
    #expect(text.hasSuffix("ended: 2023-11-14T22:13:21Z\nerror: vda: bad luck\n"))
    #expect(StatusText.device(current: nil, last: nil) == "No active jobs\n")
  }

  @Test("a job that has a name of its own is listed by it, as in QEMU")
  func id() throws {
    var status = job(.pending)
    status.id = "job0"
    status.stage = .pending
    status.autoFinalize = false
    let text = StatusText.device(current: status, last: nil)
    #expect(text.hasPrefix("Streaming device job0: Completed "))
    #expect(text.contains(" bytes/s\nstate: pending\nid: job0\nprogress: "))
    let json = StatusJSON.all([status]).line
    #expect(json.hasPrefix("[{\"type\": \"stream\", \"device\": \"job0\", "))
    #expect(
      json.hasSuffix(
        "\"status\": \"pending\", \"auto-finalize\": false, \"auto-dismiss\": true}]"))
  }

  @Test("wait tells the line and the end of the job")
  func ending() {
    var failed = job(.failed, offset: 1, length: 2)
    failed.error = "vda: no"
    #expect(
      StatusText.ending(failed)
        == "Streaming device vda: Completed 1 of 2 bytes, speed limit 209715200 bytes/s: "
        + "failed: vda: no\n")
    #expect(StatusText.ending(job(.completed)).hasSuffix(" bytes/s: completed\n"))
    #expect(StatusText.ending(nil) == "No active jobs\n")
  }

  @Test(
    "progress is rounded down",
    arguments: [
      (0, 1000, "0.0"), (1, 1000, "0.1"), (999, 1000, "99.9"), (1000, 1000, "100.0"),
      (9999, 10000, "99.9"), (UInt64.max - 1, UInt64.max, "99.9"), (0, 0, "0.0"),
    ] as [(UInt64, UInt64, String)])
  func progress(offset: UInt64, length: UInt64, text: String) {
    #expect(StatusText.progress(job(offset: offset, length: length)) == text)
  }

  @Test(
    "moments are written in UTC",
    arguments: [
      (0, "1970-01-01T00:00:00Z"), (951_782_400, "2000-02-29T00:00:00Z"),
      (951_868_799, "2000-02-29T23:59:59Z"), (4_107_542_400, "2100-03-01T00:00:00Z"),
      (1_767_225_599, "2025-12-31T23:59:59Z"), (-1, "1969-12-31T23:59:59Z"),
    ] as [(Int64, String)])
  func timestamps(seconds: Int64, text: String) {
    #expect(StatusText.timestamp(WallTime(seconds: seconds)) == text)
  }

  @Test("the global JSON is what query-block-jobs returns")
  func json() {
    #expect(
      StatusJSON.all([job(.paused)]).line
        == "[{\"type\": \"stream\", \"device\": \"vda\", \"len\": 21474836480, "
        + "\"offset\": 679477248, \"busy\": true, \"paused\": true, \"speed\": 209715200, "
        + "\"io-status\": \"ok\", \"ready\": false, \"status\": \"paused\", "
        + "\"auto-finalize\": true, \"auto-dismiss\": true}]")
    #expect(StatusJSON.all([]).line == "[]")
  }

  @Test("a device's JSON has the job and the last result, whatever their texts hold")
  func deviceJSON() throws {
    var last = job(.failed)
    last.error = "a \"quote\", a \\, a tab\t and \u{1}"
    let text = StatusJSON.device(current: job(), last: last)
    let object = try JSONDecoder().decode(
      [String: Entry].self, from: Data(text.utf8))
    #expect(object["job"]?.state == "running")
    #expect(object["last"]?.error == last.error)
    #expect(StatusJSON.device(current: nil, last: nil) == "{\"job\": null, \"last\": null}\n")
  }

  private struct Entry: Decodable {
    var state: String
    var error: String?
  }
}

@Suite("BlockText")
struct BlockTextTests {
  private func layer(_ index: Int, _ path: String, _ format: String) -> LayerDescription {
    LayerDescription(
      index: index, id: LayerID(rawValue: UInt32(9 - index)), path: path, format: format,
      virtualSize: 1024, allocatedBytes: 512, backingString: nil)
  }

  @Test("a chain is shown as QEMU's info block shows it")
  func info() {
    let layers = [layer(0, "/p/sn1.qcow2", "qcow2"), layer(1, "/p/base.raw", "raw")]
    #expect(
      BlockText.info(
        device: "vda", layers: layers[...], isReadOnly: false, detectZeroes: .off, ioStatus: .ok)
          == """
          vda: /p/sn1.qcow2 (qcow2)
              Cache mode:       writeback
              Backing file:     /p/base.raw (chain depth: 1)

          """)
    #expect(
      BlockText.info(
        device: "vdb", layers: [layers[1]], isReadOnly: true, detectZeroes: .unmap,
        ioStatus: .nospace)
          == """
          vdb: /p/base.raw (raw, read-only)
              I/O status:       nospace
              Cache mode:       writeback
              Detect zeroes:    unmap

          """)
  }

  @Test("a chain file has a line for each layer, with tabs")
  func chain() {
    let layers = [layer(0, "/p/a", "qcow2"), layer(1, "/p/b", "raw")]
    #expect(BlockText.chain(layers) == "0\tqcow2\t1024\t512\t/p/a\n1\traw\t1024\t512\t/p/b\n")
  }
}
