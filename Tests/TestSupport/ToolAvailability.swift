import Foundation

/// Which programs a test may use.
package enum ToolAvailability {
  /// The program is there. Under `CI=true` the answer is always yes, so that its absence fails a test
  /// instead of skipping it.
  package static func has(_ tool: String) -> Bool {
    let environment = ProcessInfo.processInfo.environment
    if environment["CI"] == "true" { return true }
    let places = (environment["PATH"] ?? "/usr/bin:/bin").split(separator: ":")
    let isThere = places.contains { FileManager.default.isExecutableFile(atPath: "\($0)/\(tool)") }
    if !isThere { print("skipped: \(tool) is not installed") }
    return isThere
  }

  /// All of the programs are there.
  package static func has(_ tools: [String]) -> Bool { tools.allSatisfy { has($0) } }
}
