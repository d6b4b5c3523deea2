package import Chain
package import HostSystem
internal import Jobs

// The one place where commands become jobs and jobs become text.
//
// Control files, HMP and QMP are faces of it, so that a rule is written once. It knows
// devices by their names; what a file is called and which number an errno has is Filesystem's.
//
// `error` holds the last refusal of the device or the failure of its last job. Every command that is
// carried out clears it first: the job that it starts may fail before the command returns.

/// A control file of a device that is read.
package enum DeviceFile: String, Sendable, CaseIterable {
  /// The job or its last result.
  case status
  /// The same as a JSON object.
  case statusJSON = "status.json"
  /// What a full stream would do.
  case plan
  /// The layers, active image first.
  case chain
  /// `info block` of the device.
  case info
  /// The sentence of the last refusal or failure.
  case error
  /// The limit of the job in bytes a second.
  case speed
  /// How `stream` is used.
  case stream
}

/// A control file of the whole mount that is read.
package enum MountFile: String, Sendable, CaseIterable {
  /// `info block-jobs` of all devices.
  case status
  /// What QMP's query-block-jobs returns.
  case statusJSON = "status.json"
  /// `info block` of all devices.
  case block
  /// Numbers for Prometheus.
  case metrics
}

/// Commands and status texts of all devices of a mount.
///
/// Any number of threads may call anything at once. The disks stay the caller's to close, after
/// `close()` here.
package final class ControlPlane: Sendable {
  struct Device: Sendable {
    var disk: Disk
    var jobs: StreamJobs
    /// Those that stream into layers below the active image.
    var inner: InnerJobs
    var error: ErrorSentence
    var hold: any GuestHold
    /// Nil where nobody sees the size.
    var size: (any GuestSize)?

    /// What QEMU would list of it.
    var listed: [JobStatus] { jobs.listed + inner.all.flatMap(\.listed) }
  }

  let devices: [Device]
  let sharedLimit: SharedLimit
  let nodeNames = NodeNames()
  /// What happens to the jobs of all devices.
  package let events: EventLog
  let machine = Monitor(Machine())
  /// Asks for the end of the mount.
  let end: @Sendable () -> Void

  /// Takes charge of disks whose names are different; their order is that of the texts. Each has what
  /// holds its requests at the same place of `holds`, and what shows its size at that of `sizes`.
  ///
  /// `end` asks for the end of the mount and returns at once; where nothing can end it, nothing does.
  package init(
    disks: [Disk], holds: [any GuestHold], sizes: [any GuestSize] = [], time: any TimeSource,
    end: @escaping @Sendable () -> Void = {}
  ) {
    precondition(disks.count == holds.count, "a disk without a hold")
    precondition(sizes.isEmpty || sizes.count == disks.count, "a disk without a size")
    self.end = end
    let limit = SharedLimit(time: time)
    sharedLimit = limit
    let events = EventLog(time: time)
    let ids = JobIDs()
    self.events = events
    devices = disks.indices.map { index in
      let disk = disks[index]
      let error = ErrorSentence()
      let jobs = StreamJobs(
        disk: disk, time: time, ids: ids, sharedLimit: limit, events: events,
        onFailure: { error.set($0.error ?? "\($0.device): the job failed") },
        onNote: { error.set($0) })
      return Device(
        disk: disk, jobs: jobs, inner: InnerJobs(beside: jobs), error: error, hold: holds[index],
        size: sizes.isEmpty ? nil : sizes[index])
    }
  }

  /// Goes on with the jobs that an earlier mount left; not to be called under `noresume`.
  ///
  /// Gives a sentence for each job that could not be resumed; it stands in the device's `error` too.
  package func resumeJobs() -> [String] {
    var sentences: [String] = []
    for device in devices {
      var failures: [JobError] = []
      do { try device.jobs.resumeRecorded() } catch { failures.append(error) }
      failures += device.inner.resumeRecorded()
      for failure in failures {
        device.error.set(failure.description)
        sentences.append(failure.description)
      }
    }
    return sentences
  }

  /// Leaves running jobs to the next mount and ends all waiting. To be called before disks close.
  package func close() {
    for device in devices {
      device.inner.close()
      device.jobs.close()
    }
  }

  func device(_ name: String) throws(ControlError) -> Device {
    guard let device = devices.first(where: { $0.disk.name == name }) else {
      let have = devices.map(\.disk.name).joined(separator: ", ")
      throw ControlError(kind: .notFound, sentence: "no device named \(name) (have \(have))")
    }
    return device
  }
}

// MARK: - Commands

extension ControlPlane {
  /// Carries out one write(2) to the control file `verb` of a device.
  ///
  /// A refusal changes nothing but the device's `error` file.
  package func execute(
    _ verb: ControlVerb, device name: String, bytes: [UInt8]
  ) throws(ControlError) {
    let device = try device(name)
    try telling(device) { () throws(ControlError) in
      try carryOut(ControlCommand(verb, bytes: bytes), device)
    }
  }

  /// Runs a command; what refuses it stands in the device's `error` file then.
  func telling(_ device: Device, _ body: () throws(ControlError) -> Void) throws(ControlError) {
    device.error.set(nil)
    do { try body() } catch {
      device.error.set(error.sentence)
      throw error
    }
  }

  private func carryOut(_ command: ControlCommand, _ device: Device) throws(ControlError) {
    // The guest's requests are no matter of the job, which goes on.
    if command == .stop || command == .cont {
      defer { noteHolds() }
      return command == .stop ? try device.hold.stop() : device.hold.letGo()
    }
    do {
      switch command {
      case .stream(let request): try device.jobs.start(request)
      case .cancel: try device.jobs.cancel()
      case .speed(let limit): try device.jobs.setSpeed(limit)
      case .pause: try device.jobs.pause()
      case .resume: try device.jobs.resume()
      case .finalize: try device.jobs.finalize()
      case .dismiss(let id): try device.jobs.dismiss(id: id)
      case .stop, .cont: break
      case .snapshot(let path, let format, let mode):
        try StreamJobs.snapshot([(jobs: device.jobs, path: path)], format: format, mode: mode)
      }
    } catch { throw ControlError(error) }
  }
}

// MARK: - Texts

extension ControlPlane {
  /// What a file of the whole mount says now.
  package func text(of file: MountFile) throws(ControlError) -> String {
    switch file {
    case .status: return StatusText.all(devices.flatMap(\.listed))
    case .statusJSON: return blockJobs.line + "\n"
    case .block:
      var parts: [String] = []
      for device in devices { parts.append(try info(device)) }
      return parts.joined(separator: "\n")
    case .metrics: return MetricsText.of(figures)
    }
  }

  /// What a file of a device says now. `plan` reads the tables of the whole disk.
  package func text(of file: DeviceFile, device name: String) throws(ControlError) -> String {
    let device = try device(name)
    switch file {
    case .status:
      let (current, last) = device.jobs.snapshot()
      return StatusText.device(current: current, last: last)
    case .statusJSON:
      let (current, last) = device.jobs.snapshot()
      return StatusJSON.device(current: current, last: last)
    case .plan:
      do { return BlockText.plan(try device.jobs.estimate()) } catch { throw ControlError(error) }
    case .chain: return BlockText.chain(try layers(device))
    case .info: return try info(device)
    case .error: return device.error.text ?? stopped(device) ?? ""
    case .speed: return "\(device.jobs.current?.speed ?? 0)\n"
    case .stream: return ControlVerb.stream.usage + "\n"
    }
  }

  /// Calls `action` once with the text of `wait`: when the device's job ends or the mount goes, or at
  /// once if there is no job. It may be called before this returns, and from another thread; it must
  /// not call back here.
  package func onJobEnd(
    device name: String, _ action: @escaping @Sendable (String) -> Void
  ) throws(ControlError) -> JobWait {
    let jobs = try device(name).jobs
    return JobWait(jobs.onEnd { action(StatusText.ending($0)) })
  }

  private func info(_ device: Device) throws(ControlError) -> String {
    info(device, title: device.disk.name, layers: try layers(device))
  }

  func info(_ device: Device, title: String, layers: [LayerDescription]) -> String {
    BlockText.info(
      device: title, layers: layers[...], isReadOnly: device.disk.isReadOnly,
      detectZeroes: device.disk.configuration.detectZeroes,
      ioStatus: device.jobs.current?.ioStatus ?? .ok)
  }

  func layers(_ device: Device) throws(ControlError) -> [LayerDescription] {
    do { return try device.disk.layers() } catch { throw ControlError(error) }
  }

  private func stopped(_ device: Device) -> String? {
    device.jobs.current?.error.map { StatusText.oneLine($0) + "\n" }
  }
}

/// A reader that waits for the end of a job.
package final class JobWait: Sendable {
  private let registration: JobEndRegistration

  init(_ registration: JobEndRegistration) {
    self.registration = registration
  }

  /// Gives up waiting: the action is not called any more, unless it is being called just now.
  package func cancel() { registration.cancel() }
}

/// The content of an `error` file.
final class ErrorSentence: Sendable {
  private let sentence = Monitor<String?>(nil)

  func set(_ text: String?) {
    sentence.withLock { $0 = text }
  }

  /// The sentence as a line, nil if there is none.
  var text: String? { sentence.withLock { $0 }.map { StatusText.oneLine($0) + "\n" } }
}
