internal import HostSystem

// The mount as a machine, which is what `stop`, `cont` and `quit` of QMP and HMP are about.
//
//     running --the last device is stopped--> paused --the first device goes on--> running
//        |  STOP                                 |  RESUME
//        '----------------- quit, a signal ------'--> over: SHUTDOWN
//
// A device may also be stopped by its own control file. The state and its events go by what is held, not
// by who did it, so that a client which follows the events always knows whether anybody is served.

extension ControlPlane {
  /// What is known of the machine.
  struct Machine: Sendable {
    /// What the last event said.
    var isPaused = false
    var isEnding = false
  }

  /// The requests of all devices wait.
  package var isPaused: Bool { devices.allSatisfy(\.hold.isStopped) }

  /// Lets the requests of all devices wait, or of none where one refuses.
  package func stop() throws(ControlError) {
    var stopped: [Device] = []
    for device in devices where !device.hold.isStopped {
      do { try device.hold.stop() } catch {
        for device in stopped { device.hold.letGo() }
        throw error
      }
      stopped.append(device)
    }
    noteHolds()
  }

  /// Lets the requests of all devices go on.
  package func cont() {
    for device in devices { device.hold.letGo() }
    noteHolds()
  }

  /// Tells if the state is another than it was. To be called after each stop and each end of one; the last
  /// who does so sees what all have done.
  func noteHolds() {
    let hasChanged = machine.withLock { machine in
      if machine.isPaused == isPaused { return false }
      machine.isPaused.toggle()
      // Lock: that of the log under this one, so that events come in the order of the states.
      events.note(machine.isPaused ? MachineEvent.stop : .resume)
      return true
    }
    if hasChanged { events.announce() }
  }

  /// Tells that the mount is about to end; what is told first counts.
  package func announceEnd(_ reason: MachineEvent.Reason) {
    let isFirst = machine.withLock { machine in
      if machine.isEnding { return false }
      machine.isEnding = true
      events.note(MachineEvent.shutdown(reason))
      return true
    }
    if isFirst { events.announce() }
  }

  /// Asks for the end of the mount, and returns at once.
  package func quit() {
    announceEnd(.quit)
    end()
  }
}
