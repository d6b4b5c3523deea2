internal import Chain
internal import HostSystem
internal import Logging

/// Writes to the log what fails on a device, unless there was too much of it of late.
final class FailureLog: Sendable {
  private let logger: Logger
  private let times: any TimeSource
  private let limits = Monitor<[String: RepeatLimit]>([:])

  init(_ logger: Logger, times: any TimeSource) {
    self.logger = logger
    self.times = times
  }

  func note(_ failure: ChainError, of device: String) {
    let sentence = failure.description
    let now = times.now()
    let line = limits.withLock { limits in
      limits[device, default: RepeatLimit(now: now)].line(for: sentence, now: now)
    }
    if let line { logger.error("\(device): \(line)") }
  }
}
