package import Chain
package import HostSystem

// The job of one disk: at most one at a time, with its last result.
//
//     idle --start: reserved--> running --end--> idle with a result
//
// A job that was asked not to go by itself stays in a list when it is over. It keeps its id there and
// nothing else, so that the next one can run.
//
// A start looks at tables and writes a record, which takes a while; meanwhile the place is reserved,
// so that a second start and a snapshot are refused as if the job ran already. No lock is held
// over any of it.

/// Starts, steers and watches the streaming job of one disk.
package final class StreamJobs: Sendable {
  /// What happens to somebody who waits for the end of a job.
  package typealias EndAction = @Sendable (JobStatus?) -> Void

  struct State: Sendable {
    var current: StreamJob?
    var previous: StreamJob?
    /// The job that `close` left to the next mount, as it was then.
    var left: JobStatus?
    var last: JobStatus?
    /// Jobs that are over and were not dismissed, in the order in which they ended.
    var concluded: [JobStatus] = []
    /// The layers of the job that is there now.
    var claim: LayerClaims.Number?
    var isReserved = false
    var isClosed = false
    var waiting: [UInt64: EndAction] = [:]
    var nextWait: UInt64 = 0
  }

  let disk: Disk
  let time: any TimeSource
  let names: any NamedFiles
  let threads: Int
  let sharedLimit: SharedLimit
  let ids: JobIDs
  let events: (any JobEventSink)?
  /// The layers that jobs of this disk have in hand, inner ones too.
  let claims: LayerClaims
  /// What the disk is, if it is a layer of another one.
  let inner: InnerDisk?
  /// How many jobs may be concluded and not dismissed.
  static let mostConcluded = 64
  private let onNote: @Sendable (String) -> Void
  private let onFailure: @Sendable (JobStatus) -> Void
  let state = Monitor(State())

  /// Watches over a disk that has no job yet.
  ///
  /// - Parameters:
  ///   - names: where records are kept.
  ///   - threads: how many a job has: one that plans and flushes, the others copy; one alone does all.
  ///   - ids: the ids that are taken, shared by all disks of a mount.
  ///   - sharedLimit: what the job shares with those of other disks; nil if with none.
  ///   - events: where events go.
  ///   - onFailure: called when a job failed, from one of its threads.
  ///   - onNote: called with a sentence about something that does not stop a job.
  package init(
    disk: Disk, time: any TimeSource, names: any NamedFiles = HostNames(), threads: Int = 3,
    ids: JobIDs = JobIDs(), sharedLimit: SharedLimit? = nil, events: (any JobEventSink)? = nil,
    onFailure: @escaping @Sendable (JobStatus) -> Void,
    onNote: @escaping @Sendable (String) -> Void
  ) {
    precondition(threads > 0, "a job without a thread")
    self.disk = disk
    claims = LayerClaims()
    inner = nil
    self.time = time
    self.names = names
    self.threads = threads
    self.sharedLimit = sharedLimit ?? SharedLimit(time: time)
    self.ids = ids
    self.events = events
    self.onFailure = onFailure
    self.onNote = onNote
  }

  /// Watches over a layer of a disk, whose layers have been claimed for its one job.
  init(into inner: InnerDisk, of own: StreamJobs, claim: LayerClaims.Number) {
    self.inner = inner
    disk = inner.disk
    claims = own.claims
    time = own.time
    names = own.names
    threads = own.threads
    sharedLimit = own.sharedLimit
    ids = own.ids
    events = own.events
    onFailure = own.onFailure
    onNote = own.onNote
    state.withLock { $0.claim = claim }
  }
}

// MARK: - Looking

extension StreamJobs {
  /// The job that is there now.
  package var current: JobStatus? { snapshot().current }

  /// What QEMU would list: the job that is there now, and those that are over and not dismissed.
  package var listed: [JobStatus] {
    let (job, left, concluded) = state.withLock { ($0.current, $0.left, $0.concluded) }
    return concluded + [job?.status() ?? left].compactMap { $0 }
  }

  /// Nothing of it runs or is listed, and nothing will be by itself.
  var isOver: Bool {
    state.withLock { $0.current == nil && !$0.isReserved && $0.concluded.isEmpty && $0.left == nil }
  }

  /// How the last job under this mount ended.
  package var last: JobStatus? { state.withLock { $0.last } }

  /// The job that is there now, and the last result, of one moment.
  package func snapshot() -> (current: JobStatus?, last: JobStatus?) {
    let (job, left, last) = state.withLock { ($0.current, $0.left, $0.last) }
    return (job?.status() ?? left, last)
  }

  /// What a stream without a base would do now. Looks at the tables of the whole disk.
  package func estimate() throws(JobError) -> StreamEstimate {
    do {
      return try StreamEstimate.of(disk, base: nil)
    } catch { throw .chain(error, device: disk.name) }
  }

  /// Calls `action` once when the job ends, or when the filesystem goes, from another thread. If
  /// there is no job, it is called at once with the last result, before this returns. It must not
  /// start a job itself.
  package func onEnd(_ action: @escaping EndAction) -> JobEndRegistration {
    let outcome = state.withLock { state -> (wait: UInt64?, last: JobStatus?) in
      guard state.current != nil, !state.isClosed else { return (nil, state.last) }
      state.nextWait += 1
      state.waiting[state.nextWait] = action
      return (state.nextWait, nil)
    }
    guard let wait = outcome.wait else {
      action(outcome.last)
      return JobEndRegistration(nil)
    }
    return JobEndRegistration { [weak self] in
      self?.state.withLock { _ = $0.waiting.removeValue(forKey: wait) }
    }
  }
}

// MARK: - Steering

extension StreamJobs {
  // Whoever knows jobs by their ids gives the id, so that no later job is meant by mistake.

  /// Cancels the job, whatever it is doing; when this returns, the job is over.
  package func cancel(id: String? = nil) throws(JobError) { try running(id).cancel() }

  /// Lets a pending job write its header. When this returns the job is completed, or something turned
  /// out to be missing, which is copied first. Throws what made the job fail, too.
  package func finalize(id: String? = nil) throws(JobError) { try running(id).finalize() }

  /// Lets the concluded job with an id go, or all of this disk's.
  package func dismiss(id: String? = nil) throws(JobError) {
    let (count, job) = state.withLock { state in
      let gone = state.concluded.filter { id == nil || $0.id == id }
      state.concluded.removeAll { id == nil || $0.id == id }
      for status in gone { leave(status.id) }
      return (gone.count, state.current)
    }
    if count > 0 {
      events?.announce()
    } else if let status = job?.status(), id == nil || status.id == id {
      throw .notConcluded(status.stage, device: disk.name)
    } else {
      throw .noneConcluded(device: disk.name)
    }
  }

  /// The job with this id is gone. Lock: that of the state.
  private func leave(_ id: String) {
    events?.note(.stage(.null, id: id))
    ids.release(id)
  }

  /// Holds the job; one that is held already stays so.
  package func pause(id: String? = nil) throws(JobError) {
    let job = try running(id)
    var isPending = false
    keep { () throws(RecordError) in isPending = try !job.pause() }
    if isPending { throw .pending(device: disk.name) }
  }

  /// Lets the job go on, also after it stopped on an error.
  package func resume(id: String? = nil) throws(JobError) {
    let job = try running(id)
    keep { () throws(RecordError) in try job.resume() }
  }

  /// Sets the limit of the running job in bytes a second, 0 for none.
  package func setSpeed(_ limit: UInt64, id: String? = nil) throws(JobError) {
    let job = try running(id)
    keep { () throws(RecordError) in try job.setSpeed(limit) }
  }

  /// To be called when the limit that all streams share was changed: a job that sleeps under the old one
  /// wakes.
  package func sharedLimitChanged() {
    state.withLock { $0.current }?.sharedLimitChanged()
  }

  /// Leaves a running job to the next mount; afterwards every start is refused.
  ///
  /// To be called before the disk is closed. When it returns no thread of any job is left.
  package func close() {
    let jobs = state.withLock { state in
      state.isClosed = true
      return [state.current, state.previous].compactMap { $0 }
    }
    for job in jobs { job.suspend() }
    let (current, last) = snapshot()
    endInner()
    let waiting = state.withLock { state in
      // Jobs hold their owner, and so the owner lets them go.
      state.current = nil
      state.previous = nil
      state.left = current
      let waiting = Array(state.waiting.values)
      state.waiting = [:]
      return waiting
    }
    for action in waiting { action(current ?? last) }
  }

  private func running(_ id: String?) throws(JobError) -> StreamJob {
    let (job, isClosed) = state.withLock { ($0.current, $0.isClosed) }
    if let job, id == nil || id == job.setting.id { return job }
    throw isClosed ? .closing(device: disk.name) : .noJob(device: disk.name)
  }

  // The record only says how the job goes on after a crash. On a full disk it cannot be changed, and
  // just then a job has to be resumed or cancelled.
  func keep(_ change: () throws(RecordError) -> Void) {
    do { try change() } catch { note(Sentence.about(disk.name, error.description)) }
  }

  /// Does something to a disk that has no job, and gets none meanwhile.
  package func whileIdle(_ body: () throws(ChainError) -> Void) throws(JobError) {
    try reserve()
    defer { state.withLock { $0.isReserved = false } }
    do { try body() } catch { throw .chain(error, device: disk.name) }
  }

  func reserve() throws(JobError) {
    let (refusal, previous) = state.withLock { state -> (JobError?, StreamJob?) in
      if state.isClosed { return (.closing(device: disk.name), nil) }
      if state.current != nil || state.isReserved { return (.busy(device: disk.name), nil) }
      state.isReserved = true
      let previous = state.previous
      state.previous = nil
      return (nil, previous)
    }
    if let refusal { throw refusal }
    previous?.join()
  }
}

// MARK: - Ends

extension StreamJobs: StreamJobOwner {
  func jobEnded(_ job: StreamJob, _ status: JobStatus) {
    // Who waits for the end finds the reason in place already.
    if status.state == .failed { onFailure(status) }
    settle(status, job: job)
  }

  func note(_ sentence: String) { onNote(sentence) }

  /// A layer that was streamed into is a backing layer again; nothing happens to a disk of its own.
  func endInner() {
    do { try inner?.end() } catch { note(Sentence.about(disk.name, error.description)) }
  }

  func settle(_ status: JobStatus, job: StreamJob?) {
    let waiting = state.withLock { state in
      state.current = nil
      state.previous = job ?? state.previous
      state.last = status
      let result = JobEvent.Result(status)
      events?.note(status.state == .cancelled ? .cancelled(result) : .completed(result))
      events?.note(.stage(.concluded, id: status.id))
      if let claim = state.claim { claims.giveBack(claim) }
      state.claim = nil
      if status.autoDismiss { leave(status.id) } else { state.concluded.append(status) }
      let waiting = Array(state.waiting.values)
      state.waiting = [:]
      return waiting
    }
    events?.announce()
    for action in waiting { action(status) }
  }
}

/// Somebody who waits for the end of a job; forgetting it does not end the waiting.
package final class JobEndRegistration: Sendable {
  private let withdraw: Monitor<(@Sendable () -> Void)?>

  init(_ withdraw: (@Sendable () -> Void)?) {
    self.withdraw = Monitor(withdraw)
  }

  /// Withdraws: the action is not called any more, unless it is being called just now.
  package func cancel() {
    withdraw.withLock { withdraw in
      defer { withdraw = nil }
      return withdraw
    }?()
  }
}
