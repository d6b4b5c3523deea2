internal import HostSystem
internal import Jobs

// Jobs as text. The line of `info block-jobs` is QEMU's to the byte; what QEMU does not tell stands
// in `key: value` lines below it, in an order that does not change.

/// The status files of jobs.
enum StatusText {
  /// What `info block-jobs` says without jobs.
  static let none = "No active jobs\n"

  /// QEMU's line for a job, without a newline.
  static func line(_ job: JobStatus) -> String {
    "Streaming device \(job.id): Completed \(job.offset) of \(job.length) bytes, "
      + "speed limit \(job.speed) bytes/s"
  }

  /// `info block-jobs` of several devices, newest job first.
  static func all(_ jobs: [JobStatus]) -> String {
    if jobs.isEmpty { return none }
    return newestFirst(jobs).map { line($0) + "\n" }.joined()
  }

  static func newestFirst(_ jobs: [JobStatus]) -> [JobStatus] {
    jobs.sorted { $0.order > $1.order }
  }

  /// The `status` file of one device.
  static func device(current: JobStatus?, last: JobStatus?) -> String {
    let first = current.map { line($0) + "\n" } ?? none
    guard let job = current ?? last else { return first }
    var text = first
    func add(_ key: String, _ value: String?) {
      if let value { text += "\(key): \(oneLine(value))\n" }
    }
    add("state", job.state.rawValue)
    add("id", job.id == job.device ? nil : job.id)
    add("resumed", job.isResumed ? "yes" : nil)
    add("progress", progress(job))
    add("copied", String(job.copied))
    add("zero", String(job.zero))
    add("skipped", String(job.skipped))
    add("durable", String(job.durable))
    add("rate", job.rate.map { SizeText.forPeople($0) + "/s" })
    add("eta", job.eta.map(duration))
    add("base", job.base)
    add("on-error", job.onError.rawValue)
    add("started", timestamp(job.started))
    add("ended", job.ended.map(timestamp))
    add("error", job.error)
    return text
  }

  /// What `wait` gives: QEMU's line and how it ended, on one line.
  static func ending(_ job: JobStatus?) -> String {
    guard let job else { return none }
    let error = job.error.map { ": " + oneLine($0) } ?? ""
    return "\(line(job)): \(job.state.rawValue)\(error)\n"
  }

  /// Per cent with one decimal, rounded down so that 100.0 means all of it.
  static func progress(_ job: JobStatus) -> String {
    if job.length == 0 { return job.state == .completed ? "100.0" : "0.0" }
    let (high, low) = job.offset.multipliedFullWidth(by: 1000)
    let thousandths =
      job.offset >= job.length ? 1000 : job.length.dividingFullWidth((high, low)).quotient
    return "\(thousandths / 10).\(thousandths % 10)"
  }

  /// A time span for people.
  static func duration(_ seconds: UInt64) -> String {
    let (minutes, second) = seconds.quotientAndRemainder(dividingBy: 60)
    let (hours, minute) = minutes.quotientAndRemainder(dividingBy: 60)
    if hours > 0 { return "\(hours)h \(minute)m" }
    if minute > 0 { return "\(minute)m \(second)s" }
    return "\(second)s"
  }

  /// A moment as in RFC 3339, in UTC.
  static func timestamp(_ time: WallTime) -> String {
    let (date, clock) = calendar(time)
    return "\(date)T\(clock)Z"
  }

  /// The date and the time of day of a moment, in UTC.
  static func calendar(_ time: WallTime) -> (date: String, clock: String) {
    let day = (time.seconds >= 0 ? time.seconds : time.seconds - 86399) / 86400
    let second = time.seconds - day * 86400
    // Days to the civil calendar, by eras of 400 years that begin on the first of March.
    let shifted = day + 719_468
    let era = (shifted >= 0 ? shifted : shifted - 146_096) / 146_097
    let dayOfEra = shifted - era * 146_097
    let yearOfEra =
      (dayOfEra - dayOfEra / 1460 + dayOfEra / 36524 - dayOfEra / 146_096) / 365
    let dayOfYear = dayOfEra - (365 * yearOfEra + yearOfEra / 4 - yearOfEra / 100)
    let march = (5 * dayOfYear + 2) / 153
    let month = march < 10 ? march + 3 : march - 9
    let year = yearOfEra + era * 400 + (month <= 2 ? 1 : 0)
    let date =
      "\(digits(year, 4))-\(digits(month, 2))-\(digits(dayOfYear - (153 * march + 2) / 5 + 1, 2))"
    let clock =
      "\(digits(second / 3600, 2)):\(digits(second / 60 % 60, 2)):\(digits(second % 60, 2))"
    return (date, clock)
  }

  /// A number that is not negative, with zeroes before it where it is short.
  static func digits(_ value: Int64, _ count: Int) -> String {
    let text = String(value)
    return String(repeating: "0", count: max(0, count - text.count)) + text
  }

  /// A path or a sentence must not make lines of its own.
  static func oneLine(_ text: String) -> String {
    String(String.UnicodeScalarView(text.unicodeScalars.map { $0 == "\n" ? " " : $0 }))
  }
}
