internal import Chain
internal import HostSystem
internal import Synchronization

// How a stream begins, by order of a user or of the record of an earlier mount.
//
// Everything that can be refused is looked at first; then the record is written, then the threads
// start. A crash in between starts the job at the next mount, which is what was asked for.

extension StreamJobs {
  /// Starts a stream; a refusal changes nothing.
  ///
  /// Where there is nothing to stream the job is completed when this returns.
  package func start(_ request: StreamRequest) throws(JobError) {
    try reserve()
    defer { state.withLock { $0.isReserved = false } }
    try checkStart(id: request.id)
    if request.base == nil, request.backingFile != nil {
      throw .backingFileWithoutBase(device: disk.name)
    }
    try begin(base: try findBase(request.base), request: request, origin: nil)
  }

  /// Refuses what `start` refuses whatever the request; else tells of a job that came and went.
  ///
  /// QEMU makes the job of a stream before it looks at the speed, so a negative one has these events.
  package func startNone(id: String?) throws(JobError) {
    try reserve()
    defer { state.withLock { $0.isReserved = false } }
    try checkStart(id: id)
    try tellNone(id: id)
  }

  func tellNone(id: String?) throws(JobError) {
    let id = id ?? disk.name
    guard ids.claim(id) else { throw .idInUse(id, device: disk.name) }
    for stage in [JobStage.created, .null] { events?.note(.stage(stage, id: id)) }
    ids.release(id)
    events?.announce()
  }

  /// A layer lends its job no name.
  func checkNamed(_ id: String?) throws(JobError) {
    guard let id, JobIDs.isWellFormed(id) else { throw .badID(id ?? "", device: disk.name) }
  }

  private func checkStart(id: String?) throws(JobError) {
    if disk.isReadOnly { throw .readOnly(device: disk.name) }
    let undismissed = state.withLock { $0.concluded.count }
    if undismissed >= Self.mostConcluded { throw .undismissed(undismissed, device: disk.name) }
    if let id, !JobIDs.isWellFormed(id) { throw .badID(id, device: disk.name) }
  }

  /// Goes on with the job that an earlier mount left, if there is one.
  ///
  /// Throws if there is a record that cannot be followed; the record is left as it is then.
  package func resumeRecorded() throws(JobError) {
    if disk.isReadOnly { return }
    try reserve()
    defer { state.withLock { $0.isReserved = false } }
    let path = try recordPath()
    let record: JobRecord?
    do { record = try RecordFile.load(path: path, names: names) } catch {
      throw .record(error, device: disk.name)
    }
    guard let record else { return }
    let image = JobRecord.fileName(of: try activePath())
    guard record.image == image else {
      throw .record(
        .ignored(path: path, reason: "it was written for \(record.image), not for \(image)"),
        device: disk.name)
    }
    try follow(record, base: try disk.recordedBase(record))
  }

  /// Goes on with the job of a record that was read, in an inner disk that has no job yet.
  func resume(_ record: JobRecord, base: LayerID?) throws(JobError) {
    try reserve()
    defer { state.withLock { $0.isReserved = false } }
    try follow(record, base: base)
  }

  private func follow(_ record: JobRecord, base: LayerID?) throws(JobError) {
    let request = StreamRequest(
      base: record.base, speed: record.speed, onError: record.onError,
      backingFile: record.backingFile, id: record.id, autoFinalize: record.autoFinalize ?? true,
      autoDismiss: record.autoDismiss ?? true)
    try begin(base: base, request: request, origin: record)
  }

  private func findBase(_ name: String?) throws(JobError) -> LayerID? {
    guard let name else { return nil }
    do { return try disk.findLayer(named: name) } catch {
      throw .chain(error, device: disk.name)
    }
  }

  /// Takes the job's id, and gives it back if there will be no job.
  private func begin(
    base: LayerID?, request: StreamRequest, origin: JobRecord?
  ) throws(JobError) {
    let id = request.id ?? disk.name
    // The layers come first: that they are in use is what is told of several faults.
    var claim: LayerClaims.Number?
    if inner == nil {
      let active = try onDisk { () throws(ChainError) in try disk.layers()[0].id }
      claim = try self.claim(active, base: base)
    }
    do throws(JobError) {
      guard ids.claim(id) else { throw .idInUse(id, device: disk.name) }
      if let claim { state.withLock { $0.claim = claim } }
      do { try begin(id, base: base, request: request, origin: origin) } catch {
        ids.release(id)
        throw error
      }
    } catch {
      if let claim {
        state.withLock { $0.claim = nil }
        claims.giveBack(claim)
      }
      throw error
    }
  }

  /// Takes the layers from `top` down to the one above `base` for a job.
  func claim(_ top: LayerID, base: LayerID?) throws(JobError) -> LayerClaims.Number {
    let (number, taken) = claims.take(top, base: base)
    if let number { return number }
    let layer = taken ?? top
    let path = try onDisk { () throws(ChainError) in try disk.layer(layer)?.path }
    throw .layerBusy(layer, path: path ?? "a layer", device: disk.name)
  }

  private func begin(
    _ id: String, base: LayerID?, request: StreamRequest, origin: JobRecord?
  ) throws(JobError) {
    let layers = try onDisk { () throws(ChainError) in try disk.layers() }
    let place = base.flatMap { base in layers.firstIndex { $0.id == base } }
    let hasWork = layers.count > 1 && place != 1
    let now = time.wallTime()
    let setting = StreamJob.Setting(
      id: id, hasWork: hasWork, base: base, basePath: place.map { layers[$0].path },
      backingFile: request.backingFile, onError: request.onError,
      autoFinalize: request.autoFinalize, autoDismiss: request.autoDismiss,
      isResumed: origin != nil,
      started: origin.map { WallTime(seconds: $0.started) } ?? now, order: time.now())
    let record = JobRecord(
      image: JobRecord.fileName(of: layers[0].path), base: setting.basePath,
      baseString: place.flatMap { layers[$0 - 1].backingString }, speed: request.speed,
      onError: request.onError, backingFile: request.backingFile,
      isPaused: origin?.isPaused ?? false, started: setting.started.seconds, id: request.id,
      autoFinalize: request.autoFinalize ? nil : false,
      autoDismiss: request.autoDismiss ? nil : false, isInner: inner == nil ? nil : true)
    let file = RecordFile(
      path: JobRecord.path(forImage: layers[0].path), record: record, earlier: origin,
      names: names)

    // One that was to be finalized waits for that with nothing to do too, as in QEMU. That of an earlier
    // mount does not: it may have been finalized already.
    if !hasWork, request.autoFinalize || origin != nil {
      if origin != nil {
        do { try file.remove() } catch { throw .record(error, device: disk.name) }
      }
      for stage in [JobStage.created, .running, .waiting, .pending] {
        events?.note(.stage(stage, id: id))
      }
      endInner()
      return settle(nothingToDo(setting, speed: request.speed), job: nil)
    }
    var snapshotLength: UInt64 = 0
    if hasWork {
      snapshotLength = try onDisk { () throws(ChainError) in
        try disk.streamLength(of: .snapshots)
      }
      try check(
        base: base, request: request, bytes: disk.virtualSize + snapshotLength,
        isResumed: origin != nil)
    }
    do { try file.save() } catch {
      // It may be there all the same, its name not durable yet, and would start what was refused.
      // That of an earlier mount stays for the next one.
      if origin == nil { keep { () throws(RecordError) in try file.remove() } }
      throw .record(error, device: disk.name)
    }
    let job = StreamJob(
      disk: disk, setting: setting, record: file, speed: request.speed,
      isPaused: record.isPaused, snapshotLength: snapshotLength, limit: sharedLimit, time: time,
      threads: threads, events: events, inner: inner, owner: self)
    // In place before its threads run, for it may end at once.
    state.withLock { $0.current = job }
    do { try job.start() } catch {
      let wasOver = state.withLock { state in
        if state.current == nil { return true }
        state.current = nil
        for stage in [JobStage.aborting, .concluded, .null] {
          events?.note(.stage(stage, id: id))
        }
        return false
      }
      // The threads that there were had time for all of it.
      if wasOver { return }
      events?.announce()
      keep { () throws(RecordError) in try file.remove() }
      throw .thread(error, device: disk.name)
    }
  }

  /// What refuses a stream that has something to do.
  private func check(
    base: LayerID?, request: StreamRequest, bytes: UInt64, isResumed: Bool
  ) throws(JobError) {
    _ = try onDisk { () throws(ChainError) in
      try disk.backingString(for: base, requested: request.backingFile)
    }
    // A job that ran already acts by on-error when it meets a full disk.
    if isResumed { return }
    // The tables of a large chain are not read where the whole disk would fit anyway.
    if StreamEstimate.freeBytes(beside: try activePath()) / 9 > bytes / 8 { return }
    let estimate = try onDisk { () throws(ChainError) in
      try StreamEstimate.of(disk, base: base)
    }
    if !estimate.fits {
      throw .noSpace(device: disk.name, needed: estimate.needed, free: estimate.free)
    }
  }

  private func nothingToDo(_ setting: StreamJob.Setting, speed: UInt64) -> JobStatus {
    JobStatus(
      device: disk.name, id: setting.id, state: .completed, stage: .concluded,
      isResumed: setting.isResumed, length: 0, offset: 0, copied: 0, zero: 0, skipped: 0,
      durable: 0, speed: speed, base: setting.basePath, onError: setting.onError,
      autoFinalize: setting.autoFinalize, autoDismiss: setting.autoDismiss, ioStatus: .ok,
      isBusy: false, started: setting.started, ended: time.wallTime(), order: setting.order)
  }

  private func activePath() throws(JobError) -> String {
    try onDisk { () throws(ChainError) in try disk.activePath }
  }

  private func recordPath() throws(JobError) -> String {
    JobRecord.path(forImage: try activePath())
  }

  private func onDisk<Result>(
    _ body: () throws(ChainError) -> Result
  ) throws(JobError) -> Result {
    do { return try body() } catch { throw .chain(error, device: disk.name) }
  }
}

extension Disk {
  /// The base that a record names, which is below the image that the record lies beside.
  func recordedBase(
    _ record: JobRecord, below target: LayerID? = nil
  ) throws(JobError) -> LayerID? {
    guard let path = record.base else { return nil }
    do throws(ChainError) {
      do throws(ChainError) { return try findLayer(named: path, below: target) } catch {
        // The whole chain may have been moved: then the string that names the base still holds.
        guard case .noSuchLayer = error, let string = record.baseString else { throw error }
        return try findLayer(named: string, below: target)
      }
    } catch { throw .chain(error, device: name) }
  }
}
