import HostSystem
import TestSupport
import Testing

@Suite struct AtomicFileCrashTests {
  /// Crashes after each call, and looks at the file.
  private func atEachCall(
    _ files: SimulatedFiles, _ allowed: [[UInt8]?], _ body: () throws -> Void
  ) throws {
    let seeds = Monitor<UInt64>(0)
    files.watch.set { [unowned files] change in
      for _ in 0..<40 {
        let seed = seeds.withLock { seed in
          seed += 1
          return seed
        }
        let found = try? AtomicFile.contents(
          of: "/record", limit: 4096, on: files.crash(seed: seed))
        #expect(allowed.contains(found ?? nil), "seed \(seed), \(change.kind)")
      }
    }
    try body()
    files.watch.set(nil)
    #expect(seeds.withLock { $0 } > 0)
  }

  private func contents(_ files: SimulatedFiles, seed: UInt64) throws -> [UInt8]? {
    try AtomicFile.contents(of: "/record", limit: 4096, on: files.crash(seed: seed))
  }

  @Test(
    "after a crash at any call a file is the old one or the new one, and the new one at the end")
  func replaced() throws {
    let files = SimulatedFiles()
    // More than a sector each, so that they could be torn.
    let old = [UInt8](repeating: 1, count: 1300)
    let new = [UInt8](repeating: 2, count: 1700)
    try atEachCall(files, [nil, old]) {
      try AtomicFile.replace(path: "/record", bytes: old, on: files)
    }
    for seed in 0..<20 as Range<UInt64> { #expect(try contents(files, seed: seed) == old) }
    try atEachCall(files, [old, new]) {
      try AtomicFile.replace(path: "/record", bytes: new, on: files)
    }
    for seed in 0..<20 as Range<UInt64> { #expect(try contents(files, seed: seed) == new) }
    #expect(files.names == ["/record"])
  }

  @Test("a file that was removed stays so, and what a crash left beside it is in nobody's way")
  func removed() throws {
    let files = SimulatedFiles()
    try AtomicFile.replace(path: "/record", bytes: [1], on: files)
    files.put("/record.new", [9, 9])
    try AtomicFile.replace(path: "/record", bytes: [2], on: files)
    try atEachCall(files, [nil, [2]]) { try AtomicFile.remove(path: "/record", on: files) }
    for seed in 0..<20 as Range<UInt64> { #expect(try contents(files, seed: seed) == nil) }
  }
}
