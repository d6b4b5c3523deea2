package import Chain
internal import HostSystem

// Streams into layers below the active image of a disk. Each has an inner disk of its own (`InnerDisk`), and
// with it all that the job of a disk has: this keeps them in a list, and sees to it that their layers
// do not overlap with each other's and those of the disk's own job.
//
//     start    claim the layers --> open the inner disk --> the job of that disk starts
//     end      header --> the disk drops the layers between --> backing layer again --> record gone --> claim
//
// A job that is over leaves the list with the next start.

/// The jobs that stream into layers below the active image of one disk.
package final class InnerJobs: Sendable {
  private struct State {
    var jobs: [StreamJobs] = []
    var isClosed = false
  }

  /// The job of the disk itself.
  private let own: StreamJobs
  /// How many there may be at once: each has threads.
  static let most = 16
  /// One at a time begins, for it takes its place in the list.
  private let starting = Monitor(())
  private let state = Monitor(State())

  /// None yet, beside the job of the whole disk.
  package init(beside own: StreamJobs) {
    self.own = own
  }

  /// All that are listed, and perhaps some that are over.
  package var all: [StreamJobs] { state.withLock { $0.jobs } }

  /// The layers that jobs of the disk copy into, its own included.
  package var targets: Set<LayerID> { own.claims.targets }

  /// Starts a stream into a layer, which has to name its job; a refusal changes nothing.
  package func start(_ request: StreamRequest, into target: LayerID) throws(JobError) {
    let base = try findBase(of: request, below: target)
    try begin(target, base: base) { jobs throws(JobError) in
      try jobs.checkNamed(request.id)
      try jobs.start(request)
    }
  }

  /// Refuses what `start` refuses before it opens anything; else tells of a job that came and went.
  package func startNone(_ request: StreamRequest, into target: LayerID) throws(JobError) {
    let base = try findBase(of: request, below: target)
    let claim = try own.claim(target, base: base)
    defer { own.claims.giveBack(claim) }
    try own.checkNamed(request.id)
    try own.tellNone(id: request.id)
  }

  private func findBase(
    of request: StreamRequest, below target: LayerID
  ) throws(JobError) -> LayerID? {
    if own.disk.isReadOnly { throw .readOnly(device: own.disk.name) }
    guard let name = request.base else { return nil }
    do { return try own.disk.findLayer(named: name, below: target) } catch {
      throw .chain(error, device: own.disk.name)
    }
  }

  /// Goes on with the jobs that an earlier mount left, and gives why any of them could not.
  package func resumeRecorded() -> [JobError] {
    if own.disk.isReadOnly { return [] }
    var failures: [JobError] = []
    do {
      for layer in try own.disk.layers().dropFirst() {
        do throws(JobError) { try resume(layer) } catch { failures.append(error) }
      }
    } catch { failures.append(.chain(error, device: own.disk.name)) }
    return failures
  }

  /// A layer may have been an active image once, whose job nobody waits for any more: that is told by the
  /// record.
  private func resume(_ layer: LayerDescription) throws(JobError) {
    let disk = own.disk
    let record: JobRecord?
    do {
      record = try RecordFile.load(path: JobRecord.path(forImage: layer.path), names: own.names)
    } catch { throw .record(error, device: disk.name) }
    guard let record, record.isInner == true,
      record.image == JobRecord.fileName(of: layer.path)
    else { return }
    let base = try disk.recordedBase(record, below: layer.id)
    try begin(layer.id, base: base) { jobs throws(JobError) in
      try jobs.resume(record, base: base)
    }
  }

  private func begin(
    _ target: LayerID, base: LayerID?, _ start: (StreamJobs) throws(JobError) -> Void
  ) throws(JobError) {
    try starting.withLock { _ throws(JobError) in
      try makeRoom()
      let claim = try own.claim(target, base: base)
      let inner: InnerDisk
      do throws(ChainError) { inner = try own.disk.openInner(target) } catch {
        own.claims.giveBack(claim)
        throw .chain(error, device: own.disk.name)
      }
      let jobs = StreamJobs(into: inner, of: own, claim: claim)
      // In the list before it starts: whoever hears of it may ask for it.
      state.withLock { $0.jobs.append(jobs) }
      do throws(JobError) { try start(jobs) } catch {
        state.withLock { state in state.jobs.removeAll { $0 === jobs } }
        jobs.close()
        own.claims.giveBack(claim)
        throw error
      }
    }
  }

  /// Lets go of jobs that are over, and throws if there are too many others.
  private func makeRoom() throws(JobError) {
    let (over, running, isClosed) = state.withLock { state in
      let over = state.jobs.filter(\.isOver)
      state.jobs.removeAll(where: \.isOver)
      return (over, state.jobs.count { $0.current != nil }, state.isClosed)
    }
    for jobs in over { jobs.close() }
    let device = own.disk.name
    if isClosed { throw .closing(device: device) }
    if running >= Self.most { throw .tooMany(running, device: device) }
    let concluded = all.count - running
    if concluded >= StreamJobs.mostConcluded { throw .undismissed(concluded, device: device) }
  }

  /// To be called when the limit that all streams share was changed.
  package func sharedLimitChanged() {
    for jobs in all { jobs.sharedLimitChanged() }
  }

  /// Leaves running jobs to the next mount; afterwards every start is refused. To be called before the
  /// disk is closed.
  package func close() {
    state.withLock { $0.isClosed = true }
    // One that was just starting is in the list when this is free.
    starting.withLock { _ in }
    for jobs in all { jobs.close() }
  }
}
