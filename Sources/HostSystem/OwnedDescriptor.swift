internal import Glibc

/// A file descriptor that belongs to exactly one owner and is closed exactly once.
package struct OwnedDescriptor: ~Copyable, Sendable {
  /// The number, for a system call made while the owner is borrowed.
  package let raw: Int32

  /// Takes over an open descriptor; nobody else may close it from now on.
  package init(taking raw: Int32) {
    precondition(raw >= 0, "an owned descriptor must be open")
    self.raw = raw
  }

  /// Closes the descriptor and reports what close(2) says.
  ///
  /// The number is free afterwards whatever the outcome: Linux closes before it can fail, so EINTR is
  /// not retried here.
  package consuming func close() throws(SystemError) {
    let number = raw
    discard self
    if Glibc.close(number) != 0 && errno != EINTR {
      throw SystemError(call: "close", number: errno)
    }
  }

  /// Hands the descriptor over to code that knows it by its number and closes it.
  package consuming func release() -> Int32 {
    let number = raw
    discard self
    return number
  }

  deinit {
    // Forgotten: whoever cares about the outcome has called close().
    _ = Glibc.close(raw)
  }
}
