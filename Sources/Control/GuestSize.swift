/// What shows clients the size of a device; it is where the file is, above this module.
///
/// Any number of threads may call it at once.
package protocol GuestSize: Sendable {
  /// Throws where clients could not be told of a size that they did not ask for themselves.
  func checkChange() throws(ControlError)

  /// Has clients find the size that the disk has now.
  func tell()
}
