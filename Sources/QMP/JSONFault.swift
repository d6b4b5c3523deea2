/// Bytes that are no JSON.
struct JSONFault: Error, Equatable {
  /// What is wrong with them, in QEMU's words where it has some.
  var reason: String

  init(_ reason: String) {
    self.reason = reason
  }
}
