import Foundation

/// A job of fio on a served file.
struct Fio: Sendable {
  /// fio's own words for the work, without file and duration.
  var options: String
  /// Written or read.
  var isWrite = false
  /// Which part of the disk's size each of its jobs moves, at most: an area that is written a second time,
  /// or read from the page cache, is other work. Nil for as much as the time allows.
  var share: Int?

  /// It writes past the page cache.
  var isDirectWrite: Bool { isWrite && options.contains("--direct=1") }

  /// What fio reports of a job, as far as it is used.
  private struct Report: Decodable {
    struct Job: Decodable {
      var read: Side
      var write: Side
      var sync: Flushes
    }
    struct Flushes: Decodable {
      var latency: Latency

      enum CodingKeys: String, CodingKey { case latency = "lat_ns" }
    }
    struct Side: Decodable {
      var iops: Double
      var bytesPerSecond: Double
      var operations: Double
      var latency: Latency

      enum CodingKeys: String, CodingKey {
        case iops
        case bytesPerSecond = "bw_bytes"
        case operations = "total_ios"
        case latency = "clat_ns"
      }
    }
    struct Latency: Decodable {
      var percentile: [String: Double]?
    }
    var jobs: [Job]
  }

  /// Runs the job and gives operations or MiB a second; the disk's size is in MiB.
  ///
  /// Of a job that flushes after each write, the flushes' latencies are given.
  func run(on export: Export, unit: Unit, seconds: Double, size: Int) throws -> Sample {
    let before = try export.processorTime()
    let end = share.map { "--io_size=\(size / $0)M" } ?? "--time_based"
    let text = try Tool.run(
      "fio --name=row --filename=\(export.file) --size=\(size)M --randrepeat=1 --group_reporting"
        + " --output-format=json --runtime=\(Int(seconds * 1000))ms \(end) \(options)",
      limit: Int(seconds) + 60)
    // Warnings come before the report.
    guard let start = text.firstIndex(of: "{") else {
      throw BenchError("fio said no figures", detail: text)
    }
    let report = try JSONDecoder().decode(Report.self, from: Data(text[start...].utf8))
    guard let job = report.jobs.first else { throw BenchError("fio ran no job", detail: text) }
    let side = isWrite ? job.write : job.read
    if side.operations == 0 { throw BenchError("fio did nothing: \(options)") }
    let latency = options.contains("--fsync=1") ? job.sync.latency : side.latency
    return Sample(
      value: unit == .operations ? side.iops : side.bytesPerSecond / 1_048_576,
      processorTime: try export.processorTime(since: before, operations: side.operations),
      median: latency.percentile?["50.000000"].map { $0 / 1000 },
      slow: latency.percentile?["99.000000"].map { $0 / 1000 },
      memory: try export.residentMemory())
  }
}
