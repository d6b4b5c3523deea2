import BlockIO
import CFaults
import Chain
import Encryption
import Foundation
import HostSystem
import ImageDriver
import Jobs
import TestSupport

/// A clock by which the disk's own thread never wakes: the workload alone decides when it flushes.
private struct LateClock: TimeSource {
  private let host = SystemTimeSource()
  func now() -> MonotonicTime { host.now().advanced(byMilliseconds: 1_000_000) }
  func wallTime() -> WallTime { host.wallTime() }
}

/// Why a job ended otherwise than completed.
struct JobEnd: Error, CustomStringConvertible {
  var description: String
}

/// What came of the call that was failed.
enum Outcome: String {
  /// The operation that made it reported an error.
  case told
  /// The job stopped, and went on when it was resumed.
  case stopped
  /// The operation succeeded all the same, as it has to.
  case overcome
  /// It succeeded, and this is one of the places where it may.
  case bestEffort = "best effort"
  /// Nobody heard of it.
  case vanished
}

/// One pass through a workload, with one call failed.
final class Run {
  let scenario: Scenario
  let work: Workspace
  let position: Int
  let fault: Fault
  private(set) var expected: Expectation
  private(set) var findings: [String] = []
  private(set) var site: Site?
  private(set) var outcome: Outcome?

  private var disk: Disk?
  private var image = ""
  private var stepName = ""
  /// The step in which the call is failed has been seen.
  private var isHitSeen = false
  /// A flush of the active image has failed: nothing may be called durable until it is opened anew.
  private var isSticky = false
  private var isCrashed = false
  /// The image takes no writes until it is opened anew: nobody knows which header is on the disk.
  private var isStopped = false
  private var wasStopped = false
  /// The job did not get on, and was given up: there is none to be resumed.
  private var isCancelled = false
  /// What was failed cannot fail so.
  private(set) var isVoid = false
  private var notes: [String] = []
  private var random = SeededGenerator(seed: 1)

  init(
    _ scenario: Scenario, _ work: Workspace, expected: Expectation, failing position: Int,
    _ fault: Fault
  ) {
    self.scenario = scenario
    self.work = work
    self.position = position
    self.fault = fault
    self.expected = expected
  }

  func path(_ name: String) -> String { scenario.isRelative ? name : work.run + "/" + name }

  func find(_ text: String) {
    findings.append(
      "\(scenario.name), call \(position) \(fault.rawValue), \(stepName): \(text)"
        + (site.map { " [\($0.words.joined(separator: " "))]" } ?? ""))
  }

  /// Runs the workload; gives how many calls it made.
  @discardableResult
  func go(_ steps: [Step], endsInCrash: Bool) -> Int {
    faults_begin(
      work.run, scenario.also, position,
      Int32(fault == .short ? faults_kind_short : faults_kind_fails), fault.number)
    for step in steps {
      stepName = step.name
      attempt(step)
    }
    stepName = "end"
    if disk != nil {
      if endsInCrash { faults_fail_all() }
      do {
        try disk?.close()
      } catch {
        if !endsInCrash && !isSticky && !isStopped { find("not closed: \(error)") }
      }
      disk = nil
      isCrashed = isCrashed || endsInCrash || isSticky || isStopped
    }
    return faults_end()
  }

  // MARK: - One step

  private func attempt(_ step: Step) {
    let wasThere = expected
    notes = []
    wasStopped = false
    do {
      try perform(step)
      if isHit { judgeSuccess() }
      if isSticky, step.isFlush { find("a flush succeeded after one that failed") }
    } catch {
      let isHere = isHit
      if !isHere {
        if isSticky, step.isFlush, !isFailureOfFlush(error) {
          find("not said that a flush failed: \(error)")
        }
        if !isSticky, !isStopped { find("fails without a fault: \(error)") }
        if case .close = step { isCrashed = true }
        doubt(step, from: wasThere)
        return
      }
      judgeFailure(error)
      doubt(step, from: wasThere)
      compare("after the failure")
      again(step, wasThere)
    }
  }

  /// The guest, or the user, tries the same once more.
  private func again(_ step: Step, _ wasThere: Expectation) {
    if case .close = step {
      // It is closed all the same, as after a crash.
      isCrashed = true
      return
    }
    if case .resumeJob = step, isCancelled { return }
    let doubted = expected
    if !step.changesBytes { expected = wasThere }
    do {
      try perform(step)
      if isSticky, step.isFlush { find("a flush succeeded when it was tried again") }
      if step.changesBytes { expected.settle() }
      compare("after it was tried again")
    } catch {
      expected = doubted
      if isSticky, isFailureOfFlush(error) { return }
      if case .grow = step, error.isRefusalOfWrites {
        isStopped = true
        expectLocked()
        return
      }
      find("fails again: \(error)")
    }
  }

  /// What is mounted is nobody else's, whatever became of it.
  private func expectLocked() {
    do throws(StorageError) {
      let other = try HostFile.open(
        path(image), access: .readWrite, locking: .qemu, role: .active)
      other.close()
      find("the locks are gone while the image is mounted")
    } catch {
      if case .locked = error { return }
      find("not known who has the image: \(error)")
    }
  }

  /// The call was failed in this step, and nobody has said so yet.
  private var isHit: Bool {
    if isHitSeen || faults_was_hit() == 0 { return false }
    isHitSeen = true
    site = Site.hit
    // Threads take turns as they like: the call of this number may be another one this time.
    isVoid = !Fault.kinds(of: Site.hit).contains(fault)
    return true
  }

  private func judgeSuccess() {
    if let site, fault.isOvercome(at: site) {
      outcome = .overcome
    } else if wasStopped {
      outcome = .stopped
    } else if !notes.isEmpty {
      outcome = .told
    } else if site.flatMap(BestEffort.reason) != nil {
      outcome = .bestEffort
    } else {
      outcome = .vanished
      find("nobody was told")
    }
  }

  private func judgeFailure(_ error: any Error) {
    outcome = .told
    guard let site else { return }
    if fault.isOvercome(at: site) { find("not overcome: \(error)") }
    let isFlush = site.call == "fdatasync"
    let text = "\(error)"
    let words = fault == .noSpace ? "No space left" : "Input/output error"
    if !text.contains(words) { find("the error does not say \(words): \(text)") }
    let path = String(cString: faults_hit_path())
    if isFlush, path.hasSuffix("/" + image) || path.hasSuffix(".data") { isSticky = disk != nil }
  }

  private func isFailureOfFlush(_ error: any Error) -> Bool {
    "\(error)".contains("an earlier flush failed") || error.isRefusalOfWrites
  }

  private func doubt(_ step: Step, from wasThere: Expectation) {
    expected = wasThere
    if case .grow = step, let disk { expected.grown(to: Int(disk.virtualSize)) }
    switch step {
    case .write(let offset, let count):
      expected.doubt(Expectation.Change(offset: offset, bytes: bytes(step, count)))
    case .zero(let offset, let count), .discard(let offset, let count):
      let zeroes = [UInt8](repeating: 0, count: count)
      expected.doubt(Expectation.Change(offset: offset, bytes: zeroes))
    default: break
    }
  }

  // MARK: - What steps do

  /// The same bytes whenever a step is made, others for each step.
  private func bytes(_ step: Step, _ count: Int) -> [UInt8] {
    var random = SeededGenerator(seed: UInt64(truncatingIfNeeded: count * 7919) + 17)
    if case .write(let offset, _) = step {
      random = SeededGenerator(seed: UInt64(offset * 131 + count))
    }
    return random.bytes(count)
  }

  private func theDisk() throws -> Disk {
    guard let disk else {
      throw JobEnd(description: "the disk is not open, an earlier flush failed")
    }
    return disk
  }

  private func perform(_ step: Step) throws {
    if case .write(let offset, let count) = step, offset + count > (try theDisk().virtualSize) {
      // The disk did not grow.
      return
    }
    switch step {
    case .open(let name):
      image = name
      try open()
    case .reopen: try open()
    case .read(let offset, let count):
      try compare(theDisk(), offset, count)
    case .write(let offset, let count):
      let new = bytes(step, count)
      try theDisk().write(new.span.bytes, at: GuestOffset(UInt64(offset)))
      expected.acknowledge(.init(offset: offset, bytes: new))
    case .zero(let offset, let count):
      try theDisk().writeZeroes(range(offset, count))
      expected.acknowledge(.init(offset: offset, bytes: [UInt8](repeating: 0, count: count)))
    case .discard(let offset, let count):
      try theDisk().discard(range(offset, count))
      expected.acknowledge(.init(offset: offset, bytes: [UInt8](repeating: 0, count: count)))
    case .preallocate(let offset, let count): try theDisk().preallocate(range(offset, count))
    case .flush:
      try theDisk().flush()
      expected.flushed()
    case .snapshot(let name):
      let disk = try theDisk()
      try disk.snapshot(path: work.run + "/" + name)
      image = name
      expected.flushed()
    case .populate(let base):
      let disk = try theDisk()
      let id = try base.map { name throws in try disk.findLayer(named: name) }
      for part in StreamPart.allCases {
        _ = try disk.streamExtents(of: part, from: .zero, base: id, limit: 4)
        let length = try disk.streamLength(of: part)
        _ = try disk.populate(part, GuestRange(offset: .zero, length: length), base: id)
      }
    case .rebase(let base):
      let disk = try theDisk()
      try disk.rebase(to: try base.map { name throws in try disk.findLayer(named: name) })
    case .inner(let target): try streamInto(target, of: theDisk())
    case .innerInUse(let target): try findInUse(target, of: theDisk())
    case .grow(let size):
      defer { if let disk { expected.grown(to: Int(disk.virtualSize)) } }
      try theDisk().grow(to: UInt64(size))
    case .job(let base, let policy): try runJob(base, policy)
    case .leaveJob(let base):
      // A byte a second: it is there when the mount goes.
      try withJobs { try start($0, StreamRequest(base: base, speed: 1, onError: .stop)) }
    case .resumeJob:
      try withJobs { jobs in
        try jobs.resumeRecorded()
        try jobs.setSpeed(0)
        try follow(jobs, .stop)
      }
    case .look:
      let disk = try theDisk()
      _ = try disk.layers()
      _ = try disk.nextData(from: .zero)
      _ = try disk.nextHole(from: .zero)
      let jobs = StreamJobs(
        disk: disk, time: SystemTimeSource(), onFailure: { _ in }, onNote: { _ in })
      _ = try jobs.estimate()
    case .close:
      let disk = try theDisk()
      self.disk = nil
      try disk.close()
      expected.flushed()
    case .other(_, let body): try body(self)
    }
  }

  private func open() throws {
    disk = nil
    if isSticky || isStopped { isCrashed = true }
    (isSticky, isStopped) = (false, false)
    let disk = try opened()
    self.disk = disk
    if !isCrashed { return }
    let found = try Self.allBytes(of: disk)
    if let fault = expected.firstFault(in: found, afterCrash: true) {
      find("opened again as after a crash: byte \(fault) is wrong")
    }
    expected.found(found)
    isCrashed = false
  }

  /// The image as a mount opens it.
  private func opened() throws -> Disk {
    try Disk.open(
      try configuration(image), timeSource: LateClock(),
      files: scenario.isPastPageCache ? HostImageFiles().pastPageCache : HostImageFiles())
  }

  private static func allBytes(of disk: Disk) throws -> [UInt8] {
    try bytes(of: disk, 0, Int(disk.virtualSize))
  }

  private static func bytes(of disk: Disk, _ offset: Int, _ count: Int) throws -> [UInt8] {
    var found = [UInt8](repeating: 0xEE, count: count)
    var span = found.mutableSpan
    var bytes = span.mutableBytes
    try disk.read(into: &bytes, at: GuestOffset(UInt64(offset)))
    return found
  }

  private func range(_ offset: Int, _ count: Int) -> GuestRange {
    GuestRange(offset: GuestOffset(UInt64(offset)), length: UInt64(count))
  }

  private func configuration(_ name: String) throws -> DeviceConfiguration {
    let place = path(name)
    var configuration = DeviceConfiguration(
      name: "vda", image: scenario.isRaw ? .raw(path: place) : .qcow2(path: place),
      isGrowable: true)
    if let secret = scenario.secret {
      var bytes = Array(secret.utf8)
      configuration.encryptedImages = .opened(with: try SecretBytes(passphrase: &bytes))
    }
    if !scenario.isRelative { configuration.backingRoot = work.run }
    return configuration
  }

  /// Gives a body the jobs of the disk, and keeps what they say on the side.
  private func withJobs(_ body: (StreamJobs) throws -> Void) throws {
    let told = Monitor<[String]>([])
    let jobs = StreamJobs(
      disk: try theDisk(), time: SystemTimeSource(), threads: scenario.threads,
      onFailure: { _ in }, onNote: { note in told.change { $0.append(note) } })
    defer {
      jobs.close()
      notes += told.withLock { $0 }
    }
    try body(jobs)
  }

  private func runJob(_ base: String?, _ policy: ErrorPolicy) throws {
    try withJobs { jobs in
      try start(jobs, StreamRequest(base: base, onError: policy))
      try follow(jobs, policy)
    }
  }

  private var isRecorded: Bool {
    (try? work.namesNow().contains { $0.hasSuffix(".chainfs-job") }) ?? false
  }

  private func start(_ jobs: StreamJobs, _ request: StreamRequest) throws {
    do { try jobs.start(request) } catch {
      if isRecorded, notes.isEmpty { find("a refused job has left a record") }
      throw error
    }
  }

  /// Waits for the end of a job, and lets it go on twice if it stops.
  private func follow(_ jobs: StreamJobs, _ policy: ErrorPolicy) throws {
    let limit = Date().addingTimeInterval(30)
    var stops = 0
    while let now = jobs.current {
      if Date() > limit { throw JobEnd(description: "the job hangs: \(now)") }
      if now.state != .stoppedOnError {
        usleep(200)
        continue
      }
      let isRight = policy == .stop || policy == .enospc && now.ioStatus == .nospace
      if !isRight { find("a job with on-error=\(policy.rawValue) stopped: \(now)") }
      stops += 1
      wasStopped = true
      if stops > 2 {
        isCancelled = true
        try jobs.cancel()
        throw JobEnd(description: now.error ?? "it stops without a reason")
      }
      try jobs.resume()
    }
    guard let last = jobs.last, last.state == .completed else {
      throw JobEnd(description: jobs.last?.error ?? "the job is gone")
    }
  }

  // MARK: - Looking

  private func compare(_ disk: Disk, _ offset: Int, _ count: Int) throws {
    var whole = expected.now
    whole.replaceSubrange(
      offset..<offset + count, with: try Self.bytes(of: disk, offset, count))
    if let place = expected.firstFault(in: whole, afterCrash: false) {
      find("byte \(place) is \(whole[place]) and not \(expected.now[place])")
    }
  }

  private func compare(_ when: String) {
    guard let disk else { return }
    do { try compare(disk, 0, min(expected.now.count, Int(disk.virtualSize))) } catch {
      find("not readable \(when): \(error)")
    }
  }

  /// Looks at what the run has left behind: the image, and the directory.
  func inspect(withQEMU: Bool) {
    stepName = "afterwards"
    do {
      try inspectImage(withQEMU: withQEMU)
      for name in scenario.untouched where try !work.isUnchanged(name) {
        find("\(name) was changed")
      }
      let allowed = work.names.filter { !$0.hasSuffix(".chainfs-job") }.union([image])
      let isRemovalFailed = site.map { $0.call == "unlink" } ?? false
      let left = try work.namesNow().subtracting(allowed)
      if !left.isEmpty, !isRemovalFailed { find("left behind: \(left.sorted())") }
    } catch { find("\(error)") }
  }

  private var optionsForQEMU: String {
    guard let secret = scenario.secret else { return "-f qcow2 " }
    return "--object secret,id=s,data=\(secret) --image-opts encrypt.key-secret=s,file.filename="
  }

  private func inspectImage(withQEMU: Bool) throws {
    if image.isEmpty { return }
    if !scenario.isRaw {
      let report = try checked()
      if report.corruptions > 0 || report.checkErrors > 0 {
        find("damaged: \(report.findings.prefix(3))")
      }
      if withQEMU {
        let check = try Shell.run("qemu-img check \(optionsForQEMU)\(image)", in: work.run)
        if check.status != 0 && check.status != 3 {
          find("qemu-img: \(check.output)\(check.errorOutput)")
        }
      }
    }
    let disk = try opened()
    let found = try Self.allBytes(of: disk)
    if let fault = expected.firstFault(in: found, afterCrash: isCrashed) {
      find("opened again\(isCrashed ? " as after a crash" : ""): byte \(fault) is wrong")
    }
    // The dirty bit has to have been there if there was anything to be mended.
    try disk.close()
    if scenario.isRaw || scenario.keepsLeaks { return }
    let report = try checked()
    if !report.isClean { find("not mended by a mount: \(report.findings.prefix(3))") }
  }

  private func checked() throws -> CheckReport {
    let storage = try HostFile.open(
      work.run + "/" + image, access: .readOnly, locking: .none, role: .backing)
    return try ImageCheck.run(storage: storage)
  }
}

extension Step {
  var isFlush: Bool {
    switch self {
    case .flush, .close: true
    default: false
    }
  }

  var changesBytes: Bool {
    switch self {
    case .write, .zero, .discard: true
    default: false
    }
  }
}

extension Error {
  /// Writes are refused as a whole.
  var isRefusalOfWrites: Bool { "\(self)".contains("open read-only") }
}
