import HostSystem
import Testing

@testable import Chain
@testable import Control
@testable import Jobs

private func figures(_ name: String = "vda", jobs: [JobStatus] = []) -> DeviceFigures {
  var statistics = GuestStatistics()
  statistics.counts[.read] = .init(
    operations: 3, bytes: 12288, nanoseconds: 1_000_000_007, failures: 2)
  statistics.counts[.flush] = .init(operations: 1, bytes: 0, nanoseconds: 50)
  return DeviceFigures(
    name: name, size: 1 << 40, isReadOnly: false, isHeld: true, statistics: statistics,
    load: GuestLoadSample(inFlight: 4, completed: 3, latencyNanoseconds: 2_500_000),
    map: CacheFigures(bytes: 80, limit: 33_554_432, misses: 5, evictions: 1),
    inflated: CacheFigures(bytes: 0, limit: 8_388_608, misses: 0, evictions: 0),
    chain: ChainFigures(layerCount: 3, activeBytes: 200_704, backingBytes: 67_575_808), jobs: jobs)
}

private func job(_ id: String, offset: UInt64, order: UInt64 = 1) -> JobStatus {
  JobStatus(
    device: "vda", id: id, state: .stoppedOnError, stage: .paused, isResumed: false, length: 1000,
    offset: offset, copied: 100, zero: 20, skipped: 3, durable: 90, speed: 7, onError: .stop,
    ioStatus: .nospace, isBusy: false, started: WallTime(seconds: 1_700_000_000),
    order: MonotonicTime(nanoseconds: order))
}

private func text(_ devices: [DeviceFigures]) -> String {
  MetricsText.of(
    MountFigures(devices: devices, sharedLimit: 9, events: UInt64.max, lostEvents: 12))
}

/// The samples of a text: its lines without those that begin with `#`.
private func samples(_ text: String) -> [String] {
  text.split(separator: "\n").filter { !$0.hasPrefix("#") }.map(String.init)
}

@Suite("MetricsText")
struct MetricsTextTests {
  @Test("every number of a device, its job and the mount stands there once, exactly")
  func numbers() {
    let text = text([figures(jobs: [job("j", offset: 123)])])
    let job = #"{device="vda",id="j",type="stream"}"#
    #expect(
      samples(text) == [
        #"chainfs_device_size_bytes{device="vda"} 1099511627776"#,
        #"chainfs_device_read_only{device="vda"} 0"#,
        #"chainfs_device_held{device="vda"} 1"#,
        #"chainfs_device_layers{device="vda"} 3"#,
        #"chainfs_device_allocated_bytes{device="vda",part="active"} 200704"#,
        #"chainfs_device_allocated_bytes{device="vda",part="backing"} 67575808"#,
        #"chainfs_device_operations_total{device="vda",operation="read"} 3"#,
        #"chainfs_device_operations_total{device="vda",operation="write"} 0"#,
        #"chainfs_device_operations_total{device="vda",operation="flush"} 1"#,
        #"chainfs_device_operations_total{device="vda",operation="unmap"} 0"#,
        #"chainfs_device_failed_operations_total{device="vda",operation="read"} 2"#,
        #"chainfs_device_failed_operations_total{device="vda",operation="write"} 0"#,
        #"chainfs_device_failed_operations_total{device="vda",operation="flush"} 0"#,
        #"chainfs_device_failed_operations_total{device="vda",operation="unmap"} 0"#,
        #"chainfs_device_bytes_total{device="vda",operation="read"} 12288"#,
        #"chainfs_device_bytes_total{device="vda",operation="write"} 0"#,
        #"chainfs_device_bytes_total{device="vda",operation="unmap"} 0"#,
        #"chainfs_device_operation_seconds_total{device="vda",operation="read"} 1.000000007"#,
        #"chainfs_device_operation_seconds_total{device="vda",operation="write"} 0.000000000"#,
        #"chainfs_device_operation_seconds_total{device="vda",operation="flush"} 0.000000050"#,
        #"chainfs_device_operation_seconds_total{device="vda",operation="unmap"} 0.000000000"#,
        #"chainfs_device_requests_in_flight{device="vda"} 4"#,
        #"chainfs_device_latency_seconds{device="vda"} 0.002500000"#,
        #"chainfs_cache_bytes{device="vda",cache="map"} 80"#,
        #"chainfs_cache_bytes{device="vda",cache="inflated"} 0"#,
        #"chainfs_cache_limit_bytes{device="vda",cache="map"} 33554432"#,
        #"chainfs_cache_limit_bytes{device="vda",cache="inflated"} 8388608"#,
        #"chainfs_cache_misses_total{device="vda",cache="map"} 5"#,
        #"chainfs_cache_misses_total{device="vda",cache="inflated"} 0"#,
        #"chainfs_cache_evictions_total{device="vda",cache="map"} 1"#,
        #"chainfs_cache_evictions_total{device="vda",cache="inflated"} 0"#,
        #"chainfs_job_info{device="vda",id="j",type="stream",status="paused","#
          + #"state="stopped-on-error",io_status="nospace"} 1"#,
        "chainfs_job_length_bytes\(job) 1000", "chainfs_job_offset_bytes\(job) 123",
        "chainfs_job_copied_bytes\(job) 100", "chainfs_job_zero_bytes\(job) 20",
        "chainfs_job_skipped_bytes\(job) 3", "chainfs_job_durable_bytes\(job) 90",
        "chainfs_job_speed_limit_bytes_per_second\(job) 7",
        "chainfs_job_start_time_seconds\(job) 1700000000",
        "chainfs_shared_speed_limit_bytes_per_second 9",
        "chainfs_events_total 18446744073709551615", "chainfs_events_lost_total 12",
      ])
    #expect(text.hasSuffix("\n"))
  }

  @Test("a family is told once, with the numbers of all devices")
  func families() {
    let text = text([figures("vda"), figures("vdb")])
    #expect(
      text.hasPrefix(
        """
        # HELP chainfs_device_size_bytes Size of the disk.
        # TYPE chainfs_device_size_bytes gauge
        chainfs_device_size_bytes{device="vda"} 1099511627776
        chainfs_device_size_bytes{device="vdb"} 1099511627776
        # HELP chainfs_device_read_only \

        """.dropLast()))
    #expect(
      text.contains("\n# TYPE chainfs_cache_misses_total counter\n"), "counters are told as such")
    let types = text.split(separator: "\n").filter { $0.hasPrefix("# TYPE ") }
    #expect(types.count > 15 && Set(types).count == types.count)
    #expect(samples(text).count == Set(samples(text)).count)
  }

  @Test("what nobody knows is left out, with the family if nothing is left of it")
  func leftOut() {
    var unknown = figures("vda")
    unknown.chain = nil
    unknown.load.latencyNanoseconds = 0
    #expect(!text([unknown]).contains("chainfs_device_layers"))
    #expect(!text([unknown]).contains("latency"))
    #expect(!text([unknown]).contains("chainfs_job"))
    let both = text([unknown, figures("vdb")])
    #expect(both.contains("\nchainfs_device_layers{device=\"vdb\"} 3\n"))
    #expect(both.contains("\nchainfs_device_size_bytes{device=\"vda\"} "))
    #expect(!both.contains("layers{device=\"vda\"}"))
  }

  @Test("of two jobs that look like one series the newer one is told")
  func oneSeries() {
    let jobs = [
      job("j", offset: 1, order: 1), job("j", offset: 2, order: 2), job("k", offset: 3),
    ]
    let offsets = samples(text([figures(jobs: jobs)])).filter { $0.contains("job_offset") }
    #expect(
      offsets == [
        #"chainfs_job_offset_bytes{device="vda",id="j",type="stream"} 2"#,
        #"chainfs_job_offset_bytes{device="vda",id="k",type="stream"} 3"#,
      ])
  }

  @Test("what a label says cannot end it, or the line")
  func escapes() {
    var family = MetricFamily("x_bytes", .gauge, help: "X.")
    family.add(.claim(true), [.init("a", "q\"b\\n\nend\u{e9}"), .init("b", "")])
    #expect(
      family.text == "# HELP chainfs_x_bytes X.\n# TYPE chainfs_x_bytes gauge\n"
        + "chainfs_x_bytes{a=\"q\\\"b\\\\n\\nend\u{e9}\",b=\"\"} 1\n")
    #expect(MetricFamily("y_total", .counter, help: "Y.").text.isEmpty)
  }
}
