import Foundation

/// What befalls one call.
enum Fault: String, CaseIterable {
  case io = "EIO"
  case noSpace = "ENOSPC"
  case interrupted = "EINTR"
  /// The file system has no such operation.
  case unsupported = "EOPNOTSUPP"
  /// The file system wants more of a direct write than it said.
  case refused = "EINVAL"
  /// Half of the bytes.
  case short

  var number: Int32 {
    switch self {
    case .io: EIO
    case .noSpace: ENOSPC
    case .interrupted: EINTR
    case .unsupported: EOPNOTSUPP
    case .refused: EINVAL
    case .short: 0
    }
  }

  /// Nobody has to hear of it: the call is made again, or its rest, or the work is done otherwise.
  func isOvercome(at site: Site) -> Bool {
    switch self {
    case .io: false
    // Zeroes are written in place then, and what is not given back stays allocated.
    case .noSpace: ["fallocate-punch", "fallocate-zero"].contains(site.call)
    case .interrupted, .unsupported, .refused, .short: true
    }
  }

  /// What makes sense for a call at a site.
  static func kinds(of site: Site) -> [Fault] {
    switch site.call {
    case "pread": [.io, .interrupted, .short]
    case "pwrite":
      [.io, .noSpace, .interrupted, .short]
        + (site.function.hasSuffix(".writeAligned") ? [.refused] : [])
    case "fallocate", "fallocate-punch", "fallocate-zero":
      [.io, .noSpace, .interrupted, .unsupported]
    case "FICLONERANGE": [.io, .noSpace, .interrupted, .unsupported]
    case "fdatasync", "fsync", "ftruncate", "rename", "open", "chmod", "fchmod", "unlink":
      [.io, .noSpace, .interrupted]
    default: [.io, .interrupted]
    }
  }
}

/// A place where a failure may go unsaid, and why.
struct BestEffort {
  var function: String
  var reason: String
  var caller: String?
  var call: String?

  static let all = [
    BestEffort(
      function: "BlockIO.DirectIO.init",
      reason: "without a direct door data goes through the page cache"),
    BestEffort(
      function: "BlockIO.ImageLock.release",
      reason: "a lock that cannot be given back goes with the open file"),
    BestEffort(
      function: "BlockIO.ImageLock.set",
      reason: "the conflict before is told; the kernel was given as many locks back just then"),
    BestEffort(
      function: "BlockIO.HostFile.attempt",
      reason: "freed clusters that are not punched stay allocated on the host",
      caller: "ImageDriver.Qcow2Image.releaseFreed"),
    BestEffort(
      function: "BlockIO.HostFile.attempt",
      reason: "the tables say zero; what the data file keeps is only space",
      caller: "ImageDriver.Qcow2Image.emptyDataFile"),
    BestEffort(
      function: "BlockIO.HostFile.create",
      reason: "the failure before is told; what is left is an empty file", call: "unlink"),
    BestEffort(
      function: "HostSystem.OwnedDescriptor.deinit",
      reason: "what counts was flushed before; a close(2) that fails has closed"),
    BestEffort(
      function: "BlockIO.LockHolder.",
      reason: "who holds an image is only said to be of help; the conflict is reported"),
    BestEffort(
      function: "HostSystem.HostNames.bytes", reason: "as above",
      caller: "FaultDriver.Run"),
    BestEffort(
      function: "BlockIO.HostFile.",
      reason: "a part of the map that cannot be made is made for less, which asks again",
      caller: Site.merge),
    BestEffort(
      function: "Jobs.StreamEstimate.freeBytes",
      reason: "a job that is not refused beforehand meets a full disk by on-error"),
  ]

  static func reason(_ site: Site) -> String? {
    all.first { rule in
      site.function.hasPrefix(rule.function)
        && (rule.caller.map { site.caller.hasPrefix($0) } ?? true)
        && (rule.call.map { site.call == $0 } ?? true)
    }?.reason
  }
}
