/// What holds the guest's I/O of a device; it is where the requests come from, above this module.
///
/// Any number of threads may call it at once.
package protocol GuestHold: Sendable {
  /// Requests wait, or are about to.
  var isStopped: Bool { get }

  /// Lets requests wait from now on, and returns when those that were being served are finished. Done
  /// also if they wait already.
  func stop() throws(ControlError)

  /// Lets those that wait go on, in order of arrival. Done also if none wait.
  func letGo()
}
