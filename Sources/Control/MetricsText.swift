internal import Chain
internal import HostSystem
internal import Jobs

// The numbers of a mount for Prometheus, in its text format 0.0.4: families of numbers, each with a line of
// help and one of its type, then a line for each number.
//
// Numbers that do not apply are left out, and so is a family that has none. What becomes of a job is a label
// of one family alone, so that the job's progress stays one series from first to last.

/// The `metrics` file.
enum MetricsText {
  /// All families.
  static func of(_ mount: MountFigures) -> String {
    (devices(mount.devices) + requests(mount.devices) + caches(mount.devices)
      + jobs(mount.devices.flatMap(\.jobs)) + whole(mount)).map(\.text).joined()
  }

  private static func devices(_ devices: [DeviceFigures]) -> [MetricFamily] {
    var size = MetricFamily("device_size_bytes", .gauge, help: "Size of the disk.")
    var readOnly = MetricFamily(
      "device_read_only", .gauge, help: "1 if the device cannot be written to.")
    var held = MetricFamily(
      "device_held", .gauge, help: "1 while requests of the device wait, between stop and cont.")
    var layers = MetricFamily(
      "device_layers", .gauge, help: "Layers of the chain, the active image included.")
    var allocated = MetricFamily(
      "device_allocated_bytes", .gauge,
      help: "What the files of the active image and of all others take on the host.")
    for device in devices {
      let label = MetricFamily.Label("device", device.name)
      size.add(.count(device.size), [label])
      readOnly.add(.claim(device.isReadOnly), [label])
      held.add(.claim(device.isHeld), [label])
      guard let chain = device.chain else { continue }
      layers.add(.count(UInt64(chain.layerCount)), [label])
      allocated.add(.count(chain.activeBytes), [label, .init("part", "active")])
      allocated.add(.count(chain.backingBytes), [label, .init("part", "backing")])
    }
    return [size, readOnly, held, layers, allocated]
  }

  private static func requests(_ devices: [DeviceFigures]) -> [MetricFamily] {
    var operations = MetricFamily(
      "device_operations_total", .counter, help: "Requests of the guest that were carried out.")
    var failures = MetricFamily(
      "device_failed_operations_total", .counter, help: "Requests of the guest that failed.")
    var bytes = MetricFamily(
      "device_bytes_total", .counter,
      help: "Bytes of the requests that were carried out, written zeroes included.")
    var seconds = MetricFamily(
      "device_operation_seconds_total", .counter,
      help: "Time that requests of the guest took, failed ones too.")
    var inFlight = MetricFamily(
      "device_requests_in_flight", .gauge, help: "Requests that move bytes or give them up, now.")
    var latency = MetricFamily(
      "device_latency_seconds", .gauge,
      help: "Moving average of what such a request took, over about the last eight.")
    for device in devices {
      let label = MetricFamily.Label("device", device.name)
      for operation in GuestOperation.allCases {
        let counts = device.statistics[operation]
        let labels = [label, .init("operation", word(operation))]
        operations.add(.count(counts.operations), labels)
        failures.add(.count(counts.failures), labels)
        if operation != .flush { bytes.add(.count(counts.bytes), labels) }
        seconds.add(.nanoseconds(counts.nanoseconds), labels)
      }
      inFlight.add(.count(UInt64(clamping: device.load.inFlight)), [label])
      // There is no average of nothing.
      if device.load.latencyNanoseconds > 0 {
        latency.add(.nanoseconds(device.load.latencyNanoseconds), [label])
      }
    }
    return [operations, failures, bytes, seconds, inFlight, latency]
  }

  private static func word(_ operation: GuestOperation) -> String {
    switch operation {
    case .read: "read"
    case .write: "write"
    case .flush: "flush"
    case .unmap: "unmap"
    }
  }

  private static func caches(_ devices: [DeviceFigures]) -> [MetricFamily] {
    var bytes = MetricFamily("cache_bytes", .gauge, help: "Memory that the cache takes.")
    var limit = MetricFamily("cache_limit_bytes", .gauge, help: "Memory that the cache may take.")
    var misses = MetricFamily(
      "cache_misses_total", .counter,
      help: "How often the cache had no answer and made it, for guests and jobs.")
    var evictions = MetricFamily(
      "cache_evictions_total", .counter, help: "What had to go to make room in the cache.")
    for device in devices {
      for (name, cache) in [("map", device.map), ("inflated", device.inflated)] {
        let labels = [MetricFamily.Label("device", device.name), .init("cache", name)]
        bytes.add(.count(cache.bytes), labels)
        limit.add(.count(cache.limit), labels)
        misses.add(.count(cache.misses), labels)
        evictions.add(.count(cache.evictions), labels)
      }
    }
    return [bytes, limit, misses, evictions]
  }

  private static func jobs(_ jobs: [JobStatus]) -> [MetricFamily] {
    var about = MetricFamily(
      "job_info", .gauge, help: "1, with the state of the job, and whether an error holds it.")
    let numbers: [(name: String, help: String, value: (JobStatus) -> UInt64)] = [
      ("job_length_bytes", "All that the job has to look at.", { $0.length }),
      ("job_offset_bytes", "What it has looked at.", { $0.offset }),
      ("job_copied_bytes", "What it has copied.", { $0.copied }),
      ("job_zero_bytes", "What it has made zero.", { $0.zero }),
      ("job_skipped_bytes", "What it found in its place already.", { $0.skipped }),
      ("job_durable_bytes", "What it has looked at that survives a loss of power.", { $0.durable }),
      ("job_speed_limit_bytes_per_second", "Its own speed limit, 0 for none.", { $0.speed }),
      (
        "job_start_time_seconds", "When it was first started, since 1970 in UTC.",
        { UInt64(clamping: $0.started.seconds) }
      ),
    ]
    var families = numbers.map { MetricFamily($0.name, .gauge, help: $0.help) }
    // An id may pass from a job to a newer one between two looks; a series must not come twice.
    var seen: Set<[String]> = []
    for job in StatusText.newestFirst(jobs) where seen.insert([job.device, job.id]).inserted {
      let labels: [MetricFamily.Label] = [
        .init("device", job.device), .init("id", job.id), .init("type", "stream"),
      ]
      about.add(
        .claim(true),
        labels + [
          .init("status", job.stage.rawValue), .init("state", job.state.rawValue),
          .init("io_status", job.ioStatus.rawValue),
        ])
      for (index, number) in numbers.enumerated() {
        families[index].add(.count(number.value(job)), labels)
      }
    }
    return [about] + families
  }

  private static func whole(_ mount: MountFigures) -> [MetricFamily] {
    var limit = MetricFamily(
      "shared_speed_limit_bytes_per_second", .gauge,
      help: "The limit that all streams of the mount share, 0 for none.")
    limit.add(.count(mount.sharedLimit))
    var events = MetricFamily("events_total", .counter, help: "Events that were told.")
    events.add(.count(mount.events))
    var lost = MetricFamily(
      "events_lost_total", .counter,
      help: "Events that a reader came too late for, for each such reader.")
    lost.add(.count(mount.lostEvents))
    return [limit, events, lost]
  }
}
