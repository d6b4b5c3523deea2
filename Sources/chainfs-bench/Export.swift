import Dispatch
import Foundation
import Glibc
import HostSystem

/// A served file, and who works for it.
final class Export {
  /// The flat file.
  let file: String
  /// The processes whose time and memory count; none for the raw file.
  let processes: [Int32]
  /// How long the command took that serves it; nil for the raw file, which needs none.
  let openingSeconds: Double?
  private let control: (any JobControl)?
  private let end: () throws -> Void

  init(
    file: String, processes: [Int32] = [], openingSeconds: Double? = nil,
    control: (any JobControl)? = nil, end: @escaping () throws -> Void = {}
  ) {
    self.file = file
    self.processes = processes
    self.openingSeconds = openingSeconds
    self.control = control
    self.end = end
  }

  /// Takes the export down.
  func stop() throws { try end() }

  /// Who is told about jobs.
  func jobs() throws -> any JobControl {
    guard let control else { throw BenchError("\(file) takes no commands") }
    return control
  }

  /// Runs what touches the mount in this process.
  ///
  /// After `seconds` the daemons are killed: the kernel fails what waits for them, and lets us go.
  func watched<Result>(seconds: Int, _ body: () throws -> Result) rethrows -> Result {
    let processes = processes
    let rescue = DispatchWorkItem {
      for process in processes { kill(process, SIGKILL) }
    }
    DispatchQueue.global().asyncAfter(deadline: .now() + .seconds(seconds), execute: rescue)
    defer { rescue.cancel() }
    return try body()
  }

  /// Nanoseconds of processor time that the processes have used so far, with threads that have ended.
  func processorTime() throws -> Double {
    try processes.reduce(0) { sum, process in
      var clock = clockid_t()
      var time = timespec()
      // Alive: each call fills one local.
      try SystemCall.checking("clock_getcpuclockid", unsafe clock_getcpuclockid(process, &clock))
      _ = try SystemCall.retrying("clock_gettime") { unsafe clock_gettime(clock, &time) }
      return sum + Double(time.tv_sec) * 1e9 + Double(time.tv_nsec)
    }
  }

  /// The same since `earlier`, in microseconds for each of `operations`; nil for the raw file.
  func processorTime(since earlier: Double, operations: Double) throws -> Double? {
    processes.isEmpty ? nil : (try processorTime() - earlier) / operations / 1000
  }

  /// MiB of memory that the processes hold; nil for the raw file.
  func residentMemory() throws -> Double? {
    if processes.isEmpty { return nil }
    return try processes.reduce(0) { sum, process in
      let text = try String(contentsOfFile: "/proc/\(process)/status", encoding: .utf8)
      let line = text.split(separator: "\n").first { $0.hasPrefix("VmRSS:") }
      return sum + (Double((line ?? "").filter(\.isNumber)) ?? 0) / 1024
    }
  }
}
