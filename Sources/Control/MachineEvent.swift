/// What happens to the whole mount, in the words that QMP has for a machine.
package enum MachineEvent: Sendable, Equatable {
  /// Why the mount ends. The raw values are those of QMP.
  package enum Reason: String, Sendable {
    /// Somebody gave the command `quit`.
    case quit = "host-qmp-quit"
    /// A signal came.
    case signal = "host-signal"
  }

  /// The requests of all devices wait from now on.
  case stop
  /// Those of a device go on again.
  case resume
  /// The mount is about to end.
  case shutdown(Reason)
}
