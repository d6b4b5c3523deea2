// Where errno is read. Every call of the project that reports through errno passes through
// `SystemCall.retrying`, so that EINTR is answered in one place and a failure becomes a SystemError
// with the call's name in it before anything else can overwrite errno.

internal import CHost
internal import Glibc

/// The thin layer over the host's system calls.
package enum SystemCall {
  /// Runs `body` until it is not interrupted, and gives its result if that is not negative.
  ///
  /// `body` is one system call and nothing else: errno is read right behind it.
  package static func retrying<Result: SignedInteger>(
    _ call: String, _ body: () -> Result
  ) throws(SystemError) -> Result {
    while true {
      let result = body()
      if result >= 0 { return result }
      let number = errno
      if number != EINTR { throw SystemError(call: call, number: number) }
    }
  }

  /// The same for a call that gives something, or nothing if it failed.
  static func retryingUntilThere<Value>(
    _ call: String, _ body: () -> Value?
  ) throws(SystemError) -> Value {
    while true {
      if let value = body() { return value }
      let number = errno
      if number != EINTR { throw SystemError(call: call, number: number) }
    }
  }

  /// Checks the result of a call that returns its errno, as the pthread functions do.
  package static func checking(_ call: String, _ status: Int32) throws(SystemError) {
    if status != 0 { throw SystemError(call: call, number: status) }
  }

  /// Splits the process in two; gives 0 in the child, the child's id in the parent.
  ///
  /// The caller sees to it that no other thread runs: the child has only the calling one. And that one
  /// goes on with `Worker.replaceThread`, or with nothing that takes a lock.
  package static func fork() throws(SystemError) -> Int32 {
    try retrying("fork") { chainfs_fork() }
  }

  /// Refuses a path that C would cut short at a NUL.
  static func checkPath(_ path: String, for call: String) throws(SystemError) {
    if path.utf8.contains(0) { throw SystemError(call: call, number: EINVAL) }
  }
}

/// The system's words for an errno.
func systemMessage(for number: Int32) -> String {
  unsafe withUnsafeTemporaryAllocation(of: CChar.self, capacity: 256) { buffer in
    // In bounds and alive: the allocation outlives this closure's body and its size is passed along;
    // the XSI call writes at most that much, with a NUL.
    unsafe buffer.initialize(repeating: 0)
    guard let start = buffer.baseAddress,
      unsafe strerror_r(number, start, buffer.count) == 0
    else { return "error \(number)" }
    return unsafe String(cString: start)
  }
}
