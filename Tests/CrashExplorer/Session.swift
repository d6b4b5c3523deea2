// A disk in use between two crashes: it is mounted, worked on, and unmounted, all on one thread at a time.
//
// After every call that changes a file or a name, the session hands out the moment as a crash point, with
// what has to hold there; others make the crashes and judge them. Some crashes are gone on with: then
// a session of its own mounts what the crash left, and its crash points are crashes in the recovery.
//
// Everything is decided by the seed, and nothing by what others do meanwhile, so a session can be run
// again to any of its states. A job runs with one thread and with a clock of steps (see StepTime), so that the
// guest's writes fall between the same steps each time.

import BlockIO
import Chain
import Encryption
import HostSystem
import ImageDriver
import Jobs
import Synchronization
import TestSupport

/// One life of a disk.
final class Session: @unchecked Sendable {
  // Sendable: used by one thread at a time; a job's thread works only while the session's waits for it.
  let explorer: Explorer
  let template: Template
  let name: StateName
  let files: SimulatedFiles
  var expectation: Expectation
  var random: SeededGenerator
  var marks = Landmarks()
  var disk: Disk?
  /// How often the guest may still come in between the steps of a job.
  var wishes = 0
  private var states = 0

  /// The first session of a workload.
  convenience init(_ explorer: Explorer, _ template: Template, workload: Int) {
    let name = StateName(workload: workload, numbers: [])
    self.init(
      explorer, template, name, template.files.copied(), Expectation(template),
      seed: name.seed(explorer.seed))
  }

  /// A session on what a crash left.
  init(
    _ explorer: Explorer, _ template: Template, _ name: StateName, _ files: SimulatedFiles,
    _ expectation: Expectation, seed: UInt64
  ) {
    self.explorer = explorer
    self.template = template
    self.name = name
    self.files = files
    self.expectation = expectation
    random = SeededGenerator(seed: seed)
  }

  /// Runs the session to its end.
  func run() {
    files.watch.set { [unowned self] change in crashPoint(change) }
    defer { files.watch.set(nil) }
    do {
      try mount()
      let steps = name.numbers.isEmpty ? 10 : 3
      for _ in 0..<steps {
        if explorer.isDone { break }
        try step()
      }
      try unmount()
      explorer.count(session: name)
    } catch {
      explorer.fail(
        name, "\(template.shape.name)\n  the session itself, at \(expectation.operation): \(error)")
      leave()
    }
  }

  private func crashPoint(_ change: DiskChange) {
    let moment = files.moment
    let place = marks.name(of: change)
    // Where one write turns an image from old to new, more of its ends are worth a look.
    let isTurn = place.hasPrefix("header") || place == "bitmaps" || place == "snapshot tables"
    let count = files.isDurable ? 1 : (isTurn ? 10 : 3) / (name.numbers.isEmpty ? 1 : 3)
    let first = states + 1
    states += count
    explorer.submit(
      CrashPoint(
        template: template, session: name, first: first, count: count, moment: moment,
        expectation: expectation, change: place))
  }

  /// Puts the disk away after a failure, so that no thread of it stays.
  private func leave() {
    files.watch.set(nil)
    try? disk?.close()
    disk = nil
  }

  // MARK: - Mounting

  func begin(_ operation: String) {
    expectation.operation = operation
    marks = Landmarks(files.disk(expectation.path), path: expectation.path)
  }

  private func mount() throws {
    begin("mount")
    let opened = try template.open(expectation.path, files)
    disk = opened
    expectation.isUnsound = false
    try compare()
    if expectation.record != nil {
      begin("resume")
      try run(StreamJob.resumed)
    }
  }

  private func unmount() throws {
    guard let disk else { return }
    begin("unmount")
    try disk.close()
    self.disk = nil
    expectation.history.flushed()
    try template.expectSound(
      expectation.path, files.copied(), mayLeak: expectation.mayLeak, isClosed: true)
  }

  /// The bytes are what they should be.
  func compare() throws {
    guard let disk else { return }
    let found = try disk.allBytes()
    if found != expectation.history.now {
      let sector = zip(found, expectation.history.now).enumerated()
        .first { $0.element.0 != $0.element.1 }.map { $0.offset / 512 }
      throw Fault("sector \(sector ?? -1) reads wrong without any crash")
    }
  }

  // MARK: - Operations

  private func step() throws {
    guard disk != nil else { return try mount() }
    if expectation.history.now.isEmpty { return try grow() }
    // A live snapshot ends what streams do for internal ones.
    if template.shape.hasSnapshots, expectation.path == "/top", random.oneIn(4) {
      return try stream()
    }
    switch Int.random(in: 0..<100, using: &random) {
    case 0..<50: try guestOperation()
    case 50..<60: try flush()
    case 60..<66:
      try unmount()
      if random.oneIn(3) { try repair() }
      try mount()
    case 66..<76: try snapshot()
    case 76..<87: try stream()
    case 87..<93: try streamInner()
    default: try grow()
    }
    if random.oneIn(3) { try compare() }
  }

  /// Something that a guest does.
  func guestOperation() throws {
    guard let disk, !expectation.history.now.isEmpty else { return }
    let range = self.range(size: expectation.history.now.count)
    let start = Int(range.offset.rawValue)
    let length = Int(range.length)
    marks = Landmarks(files.disk(expectation.path), path: expectation.path)
    let place = marks.name(at: range.offset.rawValue)
    switch Int.random(in: 0..<16, using: &random) {
    case 0..<10:
      begin("write: \(place)")
      let bytes = random.oneIn(12) ? [UInt8](repeating: 0, count: length) : random.bytes(length)
      expectation.history.write(bytes, at: start)
      try disk.write(bytes.rawSpan, at: range.offset)
    case 10, 11:
      begin("zero: \(place)")
      expectation.history.zero(start, length)
      try disk.writeZeroes(range)
    case 12, 13:
      begin("discard: \(place)")
      expectation.history.zero(start, length)
      try disk.discard(range)
    case 14:
      begin("preallocate: \(place)")
      try disk.preallocate(range)
    default: try flush()
    }
  }

  private func range(size: Int) -> GuestRange {
    let unit = [1, 512, 512, 4096, 1 << template.shape.clusterBits]
    let align = unit[Int.random(in: 0..<unit.count, using: &random)]
    let most = max(2 << template.shape.clusterBits, 12_000)
    // Often near the start, so that places meet again.
    let reach = random.oneIn(2) ? max(size / 4, 512) : size
    let start = Int.random(in: 0..<reach, using: &random) / align * align
    var length = Int.random(in: 1...min(most, size - start), using: &random)
    if align > 1, length > align { length = length / align * align }
    return GuestRange(offset: GuestOffset(UInt64(start)), length: UInt64(length))
  }

  private func flush() throws {
    guard let disk else { return }
    begin("flush")
    try disk.flush()
    expectation.history.flushed()
  }

  private func repair() throws {
    if template.isRaw(expectation.path) { return }
    begin("repair")
    let storage = try files.open(
      expectation.path, role: .active, isReadOnly: false, isLocked: false)
    defer { storage.close() }
    let report = try ImageCheck.repair(storage: storage, .all)
    if !report.isClean { throw Fault("a repair left \(report.findings)") }
  }

  private func grow() throws {
    guard let disk else { return }
    let shape = template.shape
    let isTop = expectation.path == "/top"
    if isTop, shape.version == 2, shape.hasSnapshots { return }
    let old = expectation.history.now.count
    if old > 3 << 20 { return }
    begin("grow")
    let new = old + 512 * Int.random(in: 1...40, using: &random)
    expectation.sizes = [old, new]
    expectation.history.grow(to: new)
    do {
      try disk.grow(to: UInt64(new))
      expectation.sizes = [new]
    } catch {
      // A bitmap that somebody was killed with is in the way for good.
      guard isTop, shape.hasBitmaps, disk.virtualSize == UInt64(old) else { throw error }
      expectation.sizes = [old]
      expectation.history.shrink(to: old)
    }
  }

  private func snapshot() throws {
    // A large disk takes long, and has other things to show.
    guard let disk, expectation.oldChain.count < 6, template.bytes.count < 1 << 20 else { return }
    let path = "/s\(String(random.next() >> 40, radix: 16))"
    var isVersion2 = false
    var mode = SnapshotMode.absolutePaths
    if random.oneIn(2) {
      begin("make overlay")
      mode = .existing
      isVersion2 = try makeOverlay(path)
    }
    begin("snapshot")
    try disk.snapshot(path: path, mode: mode)
    expectation.path = path
    expectation.chains = [[path] + expectation.oldChain]
    expectation.snapshots = [:]
    expectation.bitmapsSince = nil
    expectation.mayLeak = isVersion2
    // The old image was flushed and closed before the new one took over.
    expectation.history.flushed()
  }

  /// Makes an overlay of some kind; true if it has version 2.
  private func makeOverlay(_ path: String) throws -> Bool {
    let active = expectation.path
    let storage = try files.create(path, like: SimulatedDisk(seed: 0), isLocked: false)
    var options = ImageBuilder.Options(
      virtualSize: UInt64(expectation.history.now.count),
      backing: BackingReference(
        name: random.oneIn(2) ? active : String(active.dropFirst()),
        format: template.isRaw(active) ? "raw" : "qcow2"))
    options.clusterSize = 1 << Int.random(in: 9...16, using: &random)
    options.version = random.oneIn(5) ? 2 : 3
    if options.version == 3 {
      options.refcountBits = 1 << Int.random(in: 0...6, using: &random)
      options.hasExtendedL2 = options.clusterSize >= 16 << 10 && random.oneIn(2)
      options.hasLazyRefcounts = random.oneIn(4)
    }
    try ImageBuilder.create(on: storage, options)
    try files.flushName(of: path)
    storage.close()
    return options.version == 2
  }
}
