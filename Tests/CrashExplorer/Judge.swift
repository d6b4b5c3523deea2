// Looks at what a crash left: is there anything in it that must not be?
//
//     before the mount   no corruption, by chainfs's own check; no bitmap that claims more than it knows; a raw
//                        data file that holds the disk's bytes
//     mounted            the size, the chain, every sector, the job that has to go on
//     sometimes          the job goes on to its end; internal snapshots; qemu-img's opinion
//     closed             no corruption, and no cluster lost
//
// The files are the judge's own and are changed by the mount.

import BlockIO
import Chain
import HostSystem
import ImageDriver
import Jobs
import TestSupport

/// Something that must not be.
struct Fault: Error, CustomStringConvertible {
  var description: String
  init(_ description: String) { self.description = description }
}

/// Judges one crash.
struct Judge {
  let template: Template
  let expectation: Expectation
  let files: SimulatedFiles
  /// Looks longer than at most states.
  let isThorough: Bool
  let asksQEMU: Bool

  /// Throws what is wrong, and gives what was found.
  func judge() throws -> Found {
    let path = expectation.path
    if !expectation.isUnsound {
      try template.expectSound(path, files, mayLeak: true, isClosed: false)
    }
    if asksQEMU, !expectation.isUnsound { try template.askQEMU(path, files) }
    if path == "/top" {
      try checkBitmaps()
      if expectation.checksRawData { try checkRawData() }
      if template.shape.feature == .unknownAutoclear { try checkAutoclear() }
    }
    try checkOthers()
    let rawData = expectation.checksRawData ? files.disk("/top.data")?.snapshot : nil
    let disk: Disk
    do { disk = try template.open(path, files) } catch { throw Fault("it does not open: \(error)") }
    var isOpen = true
    defer { if isOpen { try? disk.close() } }
    let chain = try disk.layers().map(\.path)
    guard expectation.chains.contains(chain) else { throw Fault("the chain is \(chain)") }
    if expectation.record?.mayHaveEnded == false, chain != expectation.oldChain {
      throw Fault("a job that nobody finalized left the chain \(chain)")
    }
    let bytes = try checkBytes(of: disk)
    let record = try checkRecord(disk, chain, bytes)
    isOpen = false
    try disk.close()
    try template.expectSound(path, files, mayLeak: expectation.mayLeak, isClosed: true)
    if isThorough { try checkSnapshots() }
    return Found(
      bytes: bytes, chain: chain, record: record,
      rawDataDiffers: rawData.map { $0.bytes(0, bytes.count) != bytes } ?? false)
  }

  private func checkBytes(of disk: Disk) throws -> [UInt8] {
    let bytes = try disk.allBytes()
    guard expectation.sizes.contains(bytes.count) else {
      throw Fault("the disk has \(bytes.count) bytes, not \(expectation.sizes)")
    }
    if let sector = expectation.history.firstFault(bytes, limit: expectation.certainSize) {
      throw Fault("sector \(sector) of the disk holds what it never held")
    }
    return bytes
  }

  // MARK: - Jobs

  private func checkRecord(
    _ disk: Disk, _ chain: [String], _ bytes: [UInt8]
  ) throws -> RecordExpectation? {
    let place = "/." + expectation.path.dropFirst() + ".chainfs-job"
    let isThere = files.disk(place) != nil
    guard let wanted = expectation.record else {
      if isThere { throw Fault("a record of a job that is over") }
      return nil
    }
    let newChain = expectation.chains.last ?? []
    if !isThere {
      if wanted.mayBeMissing || chain == newChain { return nil }
      throw Fault("the record of a running job is gone")
    }
    let time = StepTime(seed: 1)
    let watch = PendingWatch()
    let jobs = StreamJobs(
      disk: disk, time: time, names: files, threads: 1, events: watch, onFailure: { _ in },
      onNote: { _ in })
    defer {
      time.stop()
      jobs.close()
    }
    do { try jobs.resumeRecorded() } catch { throw Fault("the job does not go on: \(error)") }
    guard let job = jobs.current else {
      guard chain == newChain, jobs.last?.state == .completed else {
        throw Fault("the job of a record did not go on")
      }
      return RecordExpectation(
        speeds: wanted.speeds, pauses: wanted.pauses, base: wanted.base, mayBeMissing: false,
        autoFinalize: wanted.autoFinalize, isFinalized: wanted.isFinalized)
    }
    guard wanted.speeds.contains(job.speed), wanted.pauses.contains(job.state == .paused),
      job.base == wanted.base, job.autoFinalize == wanted.autoFinalize
    else {
      throw Fault(
        "the record says speed \(job.speed), \(job.state.rawValue), base \(job.base ?? "none")")
    }
    if isThorough {
      try finish(jobs, time, watch, disk, newChain, bytes)
    } else {
      // It does nothing more until it is left to the next mount.
      try jobs.pause()
    }
    return RecordExpectation(
      speeds: [job.speed], pauses: [job.state == .paused], base: job.base, mayBeMissing: false,
      autoFinalize: job.autoFinalize)
  }

  private func finish(
    _ jobs: StreamJobs, _ time: StepTime, _ watch: PendingWatch, _ disk: Disk, _ chain: [String],
    _ bytes: [UInt8]
  ) throws {
    let end = Monitor<JobStatus?>(nil)
    let wait = jobs.onEnd { status in end.change { $0 = status } }
    defer { wait.cancel() }
    if jobs.current?.state == .paused { try jobs.resume() }
    if jobs.current?.autoFinalize == false {
      let isPending = Monitor(false)
      watch.onPending { isPending.change { $0 = true } }
      // One that ends instead must not be waited for.
      let other = jobs.onEnd { _ in isPending.change { $0 = true } }
      defer { other.cancel() }
      time.open(nil)
      isPending.wait(while: { !$0 })
      guard try disk.layers().map(\.path) == expectation.oldChain else {
        throw Fault("a pending job has changed the chain")
      }
      try jobs.finalize()
    }
    time.open(nil)
    end.wait(while: { $0 == nil })
    guard end.withLock({ $0 })?.state == .completed else {
      throw Fault("the job that went on ended as \(String(describing: end.withLock { $0 }))")
    }
    guard try disk.layers().map(\.path) == chain else { throw Fault("the job left another chain") }
    if try disk.allBytes() != bytes { throw Fault("the job that went on changed bytes") }
  }
}
