// A device's status file as values, and drawn as a bar. The file is for people and scripts alike:
// its first line is QEMU's, the rest are `key: value` lines of which this reads what it shows.

/// What a device's `status` file says.
struct JobProgress {
  let device: String
  /// QEMU's line, or `No active jobs`.
  let line: String
  private let values: [Substring: Substring]

  init(device: String, text: String) {
    self.device = device
    let lines = text.split(separator: "\n")
    line = lines.first.map(String.init) ?? ""
    var values: [Substring: Substring] = [:]
    for line in lines.dropFirst() {
      guard let colon = line.firstIndex(of: ":") else { continue }
      values[line[..<colon]] = line[line.index(after: colon)...].drop { $0 == " " }
    }
    self.values = values
  }

  /// The value of one key, nil where it does not apply.
  subscript(key: Substring) -> String? {
    values[key].map(String.init)
  }

  /// True while the device has a job, also a held one.
  var isActive: Bool {
    switch self["state"] {
    case "running", "paused", "stopped-on-error", "pending": true
    default: false
    }
  }

  /// One line of at most 79 columns: the bar, and what matters now.
  var bar: String {
    let percent = self["progress"] ?? "0.0"
    let width = 24
    let share = Double(percent.filter { $0.isNumber || $0 == "." }) ?? 0
    let filled = max(0, min(width, Int(share / 100 * Double(width))))
    var text = "\(device) [" + String(repeating: "#", count: filled)
    text += String(repeating: "-", count: width - filled) + "] "
    text += percent.hasSuffix("%") ? percent : percent + " %"
    switch self["state"] {
    case "running":
      if let rate = self["rate"] { text += "  " + rate }
      if let eta = self["eta"] { text += "  eta " + eta }
    case let state?: text += "  " + state
    case nil: break
    }
    return text
  }
}
