package import HostSystem

/// The limit that the streams of all disks of a mount share; it lasts as long as the mount.
package final class SharedLimit: Sendable {
  /// Lock: before the schedule of any one job.
  let throttle: Monitor<SharedThrottle>
  private let time: any TimeSource

  /// No limit yet.
  package init(time: any TimeSource) {
    self.time = time
    throttle = Monitor(SharedThrottle(limit: 0, now: time.now()))
  }

  /// Bytes a second, 0 for no limit.
  package var bytesPerSecond: UInt64 { throttle.withLock { $0.limit } }

  /// Puts another limit in force. Jobs that sleep under the old one are to be told, see
  /// ``StreamJobs/sharedLimitChanged()``.
  package func set(_ limit: UInt64) {
    let now = time.now()
    throttle.withLock { $0.setLimit(limit, now: now) }
  }
}
