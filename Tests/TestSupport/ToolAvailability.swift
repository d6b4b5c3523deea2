import Foundation

/// Which programs a test may use.
package enum ToolAvailability {
  /// The program is there. Under `CI=true` the answer is always yes, so that its absence fails a test
  /// instead of skipping it.
  package static func has(_ tool: String) -> Bool {
    if ProcessInfo.processInfo.environment["CI"] == "true" { return true }
    return isThere(tool)
  }

  /// The program is there, under `CI=true` too: for what a test can do without.
  package static func isThere(_ tool: String) -> Bool {
    let path = ProcessInfo.processInfo.environment["PATH"] ?? "/usr/bin:/bin"
    let isThere = path.split(separator: ":").contains {
      FileManager.default.isExecutableFile(atPath: "\($0)/\(tool)")
    }
    if !isThere { print("skipped: \(tool) is not installed") }
    return isThere
  }

  /// All of the programs are there.
  package static func has(_ tools: [String]) -> Bool { tools.allSatisfy { has($0) } }
}
