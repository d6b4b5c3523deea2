internal import HostSystem

// Whether a client was interrupted before its request came.
//
// The kernel tells of an interrupt at once if the request has been sent, and otherwise when it is sent; but
// not when it is sent through io_uring (6.18: dev_uring.c never asks for FR_INTERRUPTED). A client that got
// its signal while the request lay in a ring, and the ring's thread waited for a processor, would wait
// without end, beyond the reach of kill -9. So whoever parks a read from a ring looks at the client once:
// from when the request is here, the kernel tells.

/// A thread that waits for an answer, as /proc shows it.
enum ClientThread {
  /// A signal is about to end its wait. False where that cannot be seen (another process namespace).
  static func isInterrupted(_ thread: Int32) -> Bool {
    if thread <= 0 { return false }
    do throws(SystemError) {
      return isInterrupted(status: try MountTable.readAll("/proc/\(thread)/status"))
    } catch {
      return false
    }
  }

  /// The same, of the text of proc_pid_status(5).
  static func isInterrupted(status: String) -> Bool {
    var fields: [Substring: Substring] = [:]
    for line in status.split(separator: "\n") {
      let words = line.split(maxSplits: 1, whereSeparator: { $0 == ":" })
      if words.count == 2 { fields[words[0]] = words[1].drop { $0 == "\t" || $0 == " " } }
    }
    // Once interrupted, a client waits without listening to signals any more.
    if fields["State"]?.hasPrefix("D") ?? false { return true }
    func signals(_ name: Substring) -> UInt64 {
      fields[name].flatMap { UInt64($0, radix: 16) } ?? 0
    }
    return (signals("SigPnd") | signals("ShdPnd")) & ~signals("SigBlk") != 0
  }
}
