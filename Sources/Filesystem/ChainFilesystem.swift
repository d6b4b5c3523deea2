// A mount from the first image to the last byte on disk.
//
//     signals --> mount point checked --> disks opened --> mounted --> jobs resumed --> ready
//                                                                                        |
//     disks closed <-- control closed <-- last thread of the session gone <-- unmount ---'
//
// What was opened is closed in the reverse order on every way out. A failure before `ready` leaves
// nothing mounted.

internal import Chain
internal import Control
internal import Fuse
internal import Glibc
package import HostSystem
internal import Logging

/// Why a mount could not be made, or did not end well.
package struct MountFailure: Error, CustomStringConvertible, Sendable {
  /// A sentence that names the thing.
  package let description: String

  /// A failure that a sentence tells.
  package init(_ description: String) {
    self.description = description
  }
}

/// A mounted set of disks.
package enum ChainFilesystem {
  /// Gets the process ready to serve; called by its first thread while it has no other, and after the
  /// last fork.
  package static func prepare(_ configuration: MountConfiguration) -> ServingMemory {
    ResourceLimit.raiseOpenFiles()
    return ServingMemory.prepare(
      threads: threads(configuration), devices: configuration.devices.count)
  }

  private static func threads(_ configuration: MountConfiguration) -> Int {
    configuration.threads ?? max(4, sysconf(Int32(_SC_NPROCESSORS_ONLN)) * 2)
  }

  /// Mounts, calls `ready`, and serves until the mount is unmounted or a signal ends it.
  ///
  /// `memory` is what `prepare` gave, `monitor` carries out lines of the human monitor, `service` is
  /// started and stopped with the mount. No other thread may be active yet. Returns once everything is
  /// on disk and the images are released; throws if something could not be opened, mounted or made
  /// durable.
  package static func mount(
    _ configuration: MountConfiguration, memory: ServingMemory, monitor: @escaping LineRunner,
    service: (any MountService)? = nil, ready: () -> Void
  ) throws(MountFailure) {
    // A mount that fails early has to stop it too; `serve` does so before the disks are closed.
    var hasServed = false
    defer { if !hasServed { service?.stop() } }
    let logger = Logger(label: "chainfs")
    tell(memory, logger)
    let ending = Ending()
    let signals: SignalWatch
    do { signals = try SignalWatch { _ in ending.signal() } } catch {
      throw MountFailure("\(error)")
    }
    defer { signals.stop() }
    let point: MountPoint
    do { point = try MountPoint(checking: configuration.mountpoint) } catch {
      throw MountFailure("\(error)")
    }
    let failures = FailureLog(logger, times: SystemTimeSource())
    let ownMount = OwnMount()
    let disks = try open(configuration.devices, ownMount, memory, failures)
    let holds = disks.map {
      DeviceHold(device: $0.name, requests: RequestHold()) { ending.isServedByRings }
    }
    let sizes = disks.indices.map { index in
      DeviceSize(
        device: disks[index].name, inode: InodeTree.inode(ofDevice: index),
        caching: configuration.caching
      ) { ending.session }
    }
    let control = ControlPlane(
      disks: disks, holds: holds, sizes: sizes, time: SystemTimeSource(),
      end: { ending.command() })
    ending.tells(control)
    // Each has the other, and both would stay.
    defer { ending.tells(nil) }
    do {
      var options = sessionOptions(configuration)
      if case .kept = memory { options.starting = .atOnce }
      hasServed = true
      // Who gives commands goes before what they act on.
      defer { service?.stop() }
      try serve(
        configuration, point, ownMount, options, disks, holds, control,
        MonitorLines { monitor($0, control) }, ending, logger, failures
      ) { () throws(MountFailure) in
        try service?.start(control)
        ready()
      }
    } catch {
      control.close()
      // The first failure is what is told; a disk that does not close either is logged.
      for sentence in close(disks) { logger.error("\(sentence)") }
      throw error
    }
    control.close()
    let unsaved = close(disks)
    if !unsaved.isEmpty { throw MountFailure(unsaved.joined(separator: "; ")) }
  }

  private static func serve(
    _ configuration: MountConfiguration, _ point: MountPoint, _ ownMount: OwnMount,
    _ options: SessionOptions, _ disks: [Disk], _ holds: [DeviceHold], _ control: ControlPlane,
    _ lines: MonitorLines, _ ending: Ending, _ logger: Logger, _ failures: FailureLog,
    _ ready: () throws(MountFailure) -> Void
  ) throws(MountFailure) {
    let times = SystemTimeSource()
    let mounter = FileOwner(
      userID: getuid(), groupID: getgid(), modeMask: configuration.modeMask)
    var owner = mounter
    if let user = configuration.userID { owner.userID = user }
    if let group = configuration.groupID { owner.groupID = group }
    let tree = InodeTree(
      devices: zip(disks, holds).map { disk, hold in
        DeviceNode(
          disk: disk, hold: hold.requests, owner: owner, times: times, failures: failures)
      }, socketPath: configuration.socketPath)
    let operations = TreeOperations(
      tree: tree, control: control, lines: lines, owner: owner, mounter: mounter,
      caching: configuration.caching == .none ? .direct : .cached,
      mounted: FileTime(times.wallTime()))
    do {
      let session = try FuseSession(mountpoint: point, options: options, operations: operations)
      ownMount.isMounted(at: point.path, device: session.mountedDevice)
      ending.ends(session)
      defer { ending.ends(nil) }
      if configuration.resumesJobs {
        for sentence in control.resumeJobs() { logger.warning("\(sentence)") }
      }
      try ready()
      try session.run()
    } catch let failure as MountFailure {
      throw failure
    } catch { throw MountFailure("\(error)") }
  }

  private static func sessionOptions(_ configuration: MountConfiguration) -> SessionOptions {
    let source = configuration.devices.map { device in
      switch device.image {
      case .qcow2(let path): "\(device.name)=\(path)"
      case .raw(let path): "\(device.name)=raw:\(path)"
      }
    }
    var options = SessionOptions(
      source: source.joined(separator: ","), threads: threads(configuration))
    options.access = configuration.access
    options.transport = configuration.transport
    options.writeback = configuration.caching == .writeback ? .enabled : .disabled
    // Two processors read half as much again in parts (measured: 1 MiB direct, tmpfs and ext4), but a
    // file that is never cached is asked for one part after the other. Writes stay whole: in parts, those
    // that allocate cost ext4 a commit of the journal for each.
    if configuration.caching != .none { options.largestRead = 128 << 10 }
    return options
  }

  private static func tell(_ memory: ServingMemory, _ logger: Logger) {
    if let notice = memory.notice {
      logger.log(level: notice.isWarning ? .warning : .info, "\(notice.text)")
    }
    logger.debug("the kernel knows that this process serves I/O: \(memory == .knownToKernel)")
  }

  private static func open(
    _ devices: [DeviceConfiguration], _ ownMount: OwnMount, _ memory: ServingMemory,
    _ failures: FailureLog
  ) throws(MountFailure) -> [Disk] {
    var disks: [Disk] = []
    var files = HostImageFiles(of: ownMount)
    if case .kept = memory { files = files.pastPageCache }
    for device in devices {
      do {
        disks.append(
          try Disk.open(
            device, files: files, onFlushFailure: { failures.note($0, of: device.name) }))
      } catch {
        let sentence = "\(device.name): \(error.description)"
        _ = close(disks)
        throw MountFailure(sentence)
      }
    }
    return disks
  }

  /// Closes all disks, and gives a sentence for each that could not be made durable.
  private static func close(_ disks: [Disk]) -> [String] {
    var failures: [String] = []
    for disk in disks {
      do { try disk.close() } catch { failures.append("\(disk.name): \(error.description)") }
    }
    return failures
  }
}

/// Brings the wish for the end to the session, also one that came before there was a session.
///
/// Signals and commands are counted apart. A second signal is from an owner who does not want to wait, and
/// costs what is not written yet. A command that comes twice, or a signal after it, is no such wish.
private final class Ending: Sendable {
  private struct State {
    var session: FuseSession?
    var control: ControlPlane?
    var isAsked = false
    var signals = 0
  }

  private let state = Monitor(State())

  var session: FuseSession? { state.withLock { $0.session } }

  /// There is a session, and its requests come through io_uring.
  var isServedByRings: Bool { session?.isServedByRings ?? false }

  func ends(_ session: FuseSession?) {
    let isAsked = state.withLock { state in
      state.session = session
      return state.isAsked
    }
    if isAsked { session?.requestUnmount() }
  }

  /// Who hears of a signal.
  func tells(_ control: ControlPlane?) { state.withLock { $0.control = control } }

  func signal() {
    state.withLock { $0.control }?.announceEnd(.signal)
    request { state in
      state.signals += 1
      return state.signals > 1
    }
  }

  func command() { request { _ in false } }

  private func request(_ isUrgent: (inout State) -> Bool) {
    let session = state.withLock { state -> FuseSession? in
      if !isUrgent(&state), state.isAsked { return nil }
      state.isAsked = true
      return state.session
    }
    session?.requestUnmount()
  }
}
