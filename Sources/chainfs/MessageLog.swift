internal import CHost
internal import Glibc
internal import HostSystem
internal import Logging

/// Where the daemon's messages go: standard error, which may be a file by then, or the system log.
struct MessageLog: LogHandler {
  /// The places.
  enum Place {
    /// For somebody who looks on: the message alone.
    case standardError
    /// A file that standard error leads to: with the time and the process.
    case file
    /// syslog(3).
    case system
  }

  let label: String
  let place: Place
  var metadata: Logger.Metadata = [:]
  var logLevel = Logger.Level.info

  /// Makes all loggers of the process write there.
  static func start(_ place: Place) {
    LoggingSystem.bootstrap { MessageLog(label: $0, place: place) }
  }

  subscript(metadataKey key: String) -> Logger.Metadata.Value? {
    get { metadata[key] }
    set { metadata[key] = newValue }
  }

  func log(event: LogEvent) {
    let all = metadata.merging(event.metadata ?? [:]) { _, new in new }
    let details = all.sorted { $0.key < $1.key }.map { " \($0.key)=\($0.value)" }.joined()
    let text = "\(event.message)\(details)"
    switch place {
    case .standardError:
      Terminal.complain(line: "chainfs: \(event.level): \(text)")
    case .file:
      let now = Clock.timestamp()
      Terminal.complain(line: "\(now) chainfs[\(getpid())] \(event.level): \(text)")
    case .system:
      // Alive: the string's bytes live through the call.
      unsafe chainfs_syslog(priority(of: event.level), "chainfs[\(getpid())]: \(text)")
    }
  }

  private func priority(of level: Logger.Level) -> Int32 {
    let severity =
      switch level {
      case .trace, .debug: LOG_DEBUG
      case .info: LOG_INFO
      case .notice: LOG_NOTICE
      case .warning: LOG_WARNING
      case .error: LOG_ERR
      case .critical: LOG_CRIT
      }
    return daemonFacility | severity
  }

  /// `LOG_DAEMON` of syslog.h, which is a computed macro.
  private var daemonFacility: Int32 { 3 << 3 }
}
