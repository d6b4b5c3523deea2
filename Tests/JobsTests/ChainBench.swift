import Chain
import Foundation
import HostSystem
import TestSupport

@testable import Jobs

/// A directory with a chain of images made by qemu-img, and the jobs of the disk that it makes.
///
///     base.qcow2   64 MiB, data in the first 24
///     mid.qcow2    data from 8 to 20 MiB, zero clusters from 40 to 44
///     top.qcow2    data from 16 to 18 MiB
final class ChainBench {
  let directory: String
  /// What the jobs told, also those of earlier openings.
  let events = RecordedEvents()

  static let isPossible =
    ProcessInfo.processInfo.environment["CI"] == "true"
    || FileManager.default.isExecutableFile(atPath: "/usr/bin/qemu-img")

  init() throws {
    directory = "/tmp/jobs-test-\(UUID().uuidString)"
    try FileManager.default.createDirectory(atPath: directory, withIntermediateDirectories: true)
    try run(
      """
      qemu-img create -q -f qcow2 base.qcow2 64M
      qemu-io -f qcow2 -c 'write -q -P 1 0 24M' base.qcow2
      qemu-img create -q -f qcow2 -b base.qcow2 -F qcow2 mid.qcow2
      qemu-io -f qcow2 -c 'write -q -P 2 8M 12M' -c 'write -q -z 40M 4M' mid.qcow2
      qemu-img create -q -f qcow2 -b mid.qcow2 -F qcow2 top.qcow2
      qemu-io -f qcow2 -c 'write -q -P 3 16M 2M' top.qcow2
      qemu-img convert -O raw top.qcow2 expected.raw
      """)
  }

  deinit {
    try? FileManager.default.removeItem(atPath: directory)
  }

  @discardableResult
  func run(_ script: String) throws -> String {
    try runSuccessfully(["/bin/sh", "-ec", script], in: directory, seconds: 60)
  }

  func path(_ name: String) -> String { directory + "/" + name }

  /// Opens the disk, runs the body and closes both, whatever happened.
  func open(
    _ image: String = "top.qcow2", isReadOnly: Bool = false,
    _ body: (Disk, StreamJobs, Notes) throws -> Void
  ) throws {
    let disk = try Disk.open(
      DeviceConfiguration(name: "vda", image: .qcow2(path: path(image)), isReadOnly: isReadOnly))
    let notes = Notes()
    let jobs = StreamJobs(
      disk: disk, time: SystemTimeSource(), events: events,
      onFailure: { notes.add($0.error ?? "") }, onNote: { notes.add($0) })
    defer {
      jobs.close()
      try? disk.close()
    }
    try body(disk, jobs, notes)
  }

  /// The image is clean and holds what the chain held.
  func check() throws {
    try run("qemu-img check -q top.qcow2; qemu-img compare -q top.qcow2 expected.raw")
  }

  var hasRecord: Bool {
    FileManager.default.fileExists(atPath: path(".top.qcow2.chainfs-job"))
  }

  func backing() throws -> String {
    try run("qemu-img info -U top.qcow2 | sed -n 's/^backing file: \\([^ ]*\\).*/\\1/p'")
  }
}

/// Sentences that jobs said on the side.
final class Notes: Sendable {
  private let all = Monitor<[String]>([])
  func add(_ text: String) { all.change { $0.append(text) } }
  var texts: [String] { all.withLock { $0 } }
}

extension StreamJobs {
  /// The status with which the job ends, nil if it does not within half a minute.
  func waitForEnd() -> JobStatus? {
    let result = Monitor<[JobStatus?]>([])
    let wait = onEnd { status in result.change { $0.append(status) } }
    let limit = SystemTimeSource().now().advanced(byMilliseconds: 30_000)
    result.wait(until: limit) { $0.isEmpty }
    wait.cancel()
    return result.withLock { $0.first ?? nil }
  }

  /// The first status of the running job for which the condition holds, nil after half a minute.
  func first(_ condition: (JobStatus) -> Bool) -> JobStatus? {
    let limit = SystemTimeSource().now().advanced(byMilliseconds: 30_000)
    while SystemTimeSource().now() < limit {
      if let status = current, condition(status) { return status }
      Thread.sleep(forTimeInterval: 0.002)
    }
    return nil
  }
}
