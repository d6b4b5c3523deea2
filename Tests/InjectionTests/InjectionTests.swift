import Foundation
import TestSupport
import Testing

// The work is done by FaultDriver, a program of its own: the functions that fail stand in the place of
// the C library's there. By default each site is failed a few times, at calls that the seed chooses.
// CHAINFS_FAULTS_ALL=1 fails every call of every workload in every way, which takes half an hour.
@Suite("System calls that fail", .enabled(if: ToolAvailability.has(["qemu-img", "qemu-io"])))
struct InjectionTests {
  /// Beside the tests, wherever the program under test is.
  private static var driver: String {
    for word in CommandLine.arguments where word.contains(".xctest") {
      if let end = word.range(of: "/", options: .backwards) {
        return word[..<end.lowerBound] + "/FaultDriver"
      }
    }
    return URL(fileURLWithPath: CommandLine.arguments[0]).deletingLastPathComponent().path
      + "/FaultDriver"
  }

  @Test("every system call of the block leg is failed, is told of, and spoils no byte")
  func everySite() throws {
    let isAll = ProcessInfo.processInfo.environment["CHAINFS_FAULTS_ALL"] != nil
    let directory = try TemporaryDirectory()
    let result = try run(
      Self.driver, directory.path, isAll ? "all" : "brief", seconds: isAll ? 7200 : 600)
    let last = result.errorOutput.split(separator: "\n").last { $0.hasPrefix("at ") } ?? ""
    #expect(result.status == 0, "the driver ended \(last): \(result.errorOutput.suffix(3000))")
    let table = CoverageTable(result.output)
    print(result.output.split(separator: "\n").first ?? "")
    print(table.text)
    print("\(table.runs) runs, each with one call failed; \(table.rows.count) sites")
    for finding in table.findings { Issue.record("\(finding)") }

    let failures = table.failures
    let sources = try SourceSite.all()
    #expect(sources.count > 25, "the sources were not read")
    for site in sources.sorted() {
      let failed = failures[site] ?? [:]
      #expect(failed["EIO"] ?? 0 > 0, "never failed: \(site)")
      #expect(failed["EINTR"] ?? 0 > 0, "never interrupted: \(site)")
    }
  }
}
