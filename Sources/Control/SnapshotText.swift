internal import Chain
internal import HostSystem

/// The internal snapshots of an image as `qemu-img info` lists them, which is how HMP does too.
enum SnapshotText {
  /// A table with two lines of title, nothing without snapshots. Dates are those of the clocks here.
  static func table(of snapshots: [LayerHeader.Snapshot]) -> String {
    if snapshots.isEmpty { return "" }
    let title = row("ID", "TAG", "VM SIZE", "DATE", "VM CLOCK", "ICOUNT")
    return "Snapshot list:\n" + title
      + snapshots.map { snapshot in
        row(
          StatusText.oneLine(snapshot.id), StatusText.oneLine(snapshot.name),
          SizeText.threeDigits(snapshot.vmStateSize), date(snapshot.dateSeconds),
          clock(snapshot.guestClockNanoseconds), snapshot.instructionCount.map(String.init) ?? "")
      }.joined()
  }

  private static func row(
    _ id: String, _ name: String, _ size: String, _ date: String, _ clock: String, _ count: String
  ) -> String {
    let start = left(id, 9) + " " + left(name, 16) + " "
    return start + right(size, 8) + right(date, 20) + right(clock, 13) + right(count, 11) + "\n"
  }

  /// Widths are in bytes, as those of printf.
  private static func left(_ text: String, _ width: Int) -> String {
    text + String(repeating: " ", count: max(0, width - text.utf8.count))
  }

  private static func right(_ text: String, _ width: Int) -> String {
    String(repeating: " ", count: max(0, width - text.utf8.count)) + text
  }

  private static func date(_ seconds: UInt32) -> String {
    let moment = WallTime(seconds: Int64(seconds))
    let here = WallTime(seconds: moment.seconds + moment.secondsAheadOfUTC)
    let (date, clock) = StatusText.calendar(here)
    return "\(date) \(clock)"
  }

  /// Hours, minutes, seconds and milliseconds.
  private static func clock(_ nanoseconds: UInt64) -> String {
    let milliseconds = Int64(nanoseconds / 1_000_000)
    let seconds = milliseconds / 1000
    let parts = [seconds / 3600, seconds / 60 % 60, seconds % 60]
    return parts.map { StatusText.digits($0, 2) }.joined(separator: ":")
      + "." + StatusText.digits(milliseconds % 1000, 3)
  }
}
