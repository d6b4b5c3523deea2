internal import Control
internal import FoundationEssentials
internal import ImageDriver

/// The internal snapshots of an image, as qemu-img info lists them.
enum SnapshotListing {
  /// A table with a head line; nothing without snapshots. Dates are in UTC.
  static func lines(of snapshots: [InternalSnapshot]) -> [String] {
    if snapshots.isEmpty { return [] }
    let head = row("ID", "TAG", "VM SIZE", "DATE (UTC)", "VM CLOCK")
    return [head]
      + snapshots.map { snapshot in
        row(
          plain(snapshot.id), plain(snapshot.name), SizeText.forPeople(snapshot.vmStateSize),
          date(snapshot.dateSeconds), clock(snapshot.guestClockNanoseconds))
      }
  }

  /// An array with the members that qemu-img prints.
  static func json(of snapshots: [InternalSnapshot]) -> JSONText {
    .array(
      snapshots.map { snapshot in
        var members: [JSONText.Member] = []
        if let count = snapshot.instructionCount { members.append(.init("icount", .number(count))) }
        members += [
          .init("vm-clock-nsec", .number(snapshot.guestClockNanoseconds % 1_000_000_000)),
          .init("name", .string(snapshot.name)),
          .init("date-sec", .number(UInt64(snapshot.dateSeconds))),
          .init("date-nsec", .number(UInt64(snapshot.dateNanoseconds))),
          .init("vm-clock-sec", .number(snapshot.guestClockNanoseconds / 1_000_000_000)),
          .init("id", .string(snapshot.id)),
          .init("vm-state-size", .number(snapshot.vmStateSize)),
        ]
        return .object(members)
      })
  }

  private static func row(
    _ id: String, _ name: String, _ size: String, _ date: String, _ clock: String
  ) -> String {
    let cells = [left(id, 10), left(name, 17), right(size, 10), right(date, 20), right(clock, 16)]
    return cells.joined(separator: " ")
  }

  private static func left(_ text: String, _ width: Int) -> String {
    text + String(repeating: " ", count: max(0, width - text.count))
  }

  private static func right(_ text: String, _ width: Int) -> String {
    String(repeating: " ", count: max(0, width - text.count)) + text
  }

  /// A name of the image without what could steer a terminal.
  static func plain(_ name: String) -> String {
    String(
      String.UnicodeScalarView(
        name.unicodeScalars.map { scalar in
          scalar.properties.generalCategory == .control ? "?" : scalar
        }))
  }

  private static func date(_ seconds: UInt32) -> String {
    let text = Date(timeIntervalSince1970: Double(seconds)).formatted(.iso8601)
    return String(text.map { $0 == "T" ? " " : $0 }.filter { $0 != "Z" })
  }

  /// Hours, minutes, seconds and milliseconds.
  private static func clock(_ nanoseconds: UInt64) -> String {
    let milliseconds = nanoseconds / 1_000_000
    let seconds = milliseconds / 1000
    func two(_ number: UInt64) -> String { number < 10 ? "0\(number)" : "\(number)" }
    let rest = String(milliseconds % 1000)
    let thousandths = String(repeating: "0", count: 3 - rest.count) + rest
    return "\(two(seconds / 3600)):\(two(seconds / 60 % 60)):\(two(seconds % 60)).\(thousandths)"
  }
}
