import HostSystem
import TestSupport
import Testing

@testable import Chain

/// Power goes after every write, flush and change of a name while a snapshot of two disks is taken; what
/// is left can be mounted by the old names, and by the new ones once the snapshot was taken.
@Suite("Crashes of a snapshot of two disks")
struct GroupCrashTests {
  /// What a crash may make use of, and how far the snapshot had come.
  private struct Moment: Sendable {
    var files: SimulatedFiles.Moment
    var isTaken: Bool
  }

  private func read(_ files: SimulatedFiles, _ name: String, _ path: String) throws -> [UInt8] {
    let disk = try GroupBench.open(files, name, path)
    defer { try? disk.close() }
    return try disk.allBytes()
  }

  @Test("each disk is on its old image or on its new one", arguments: [1, 2] as [UInt64])
  func anywhere(seed: UInt64) throws {
    let bench = try GroupBench(seed: seed)
    let files = bench.files
    try bench.scribble()
    for disk in bench.disks { try disk.flush() }
    let moments = Monitor<[Moment]>([])
    let isTaken = Monitor(false)
    files.watch.set { _ in
      let moment = Moment(files: files.moment, isTaken: isTaken.withLock { $0 })
      moments.withLock { $0.append(moment) }
    }
    // What is written now changes no byte, so that every crash has to leave the same disks.
    for (disk, model) in zip(bench.disks, bench.models) {
      try disk.put(Array(model[5000..<90_000]), at: 5000)
    }
    try bench.group.take()
    isTaken.withLock { $0 = true }
    let before = bench.models
    try bench.scribble(count: 1)
    for disk in bench.disks { try disk.flush() }
    files.watch.set(nil)
    let all = moments.withLock { $0 }
    #expect(all.contains { $0.isTaken } && all.contains { !$0.isTaken })
    for (step, moment) in all.enumerated() {
      for crash in 0..<2 as Range<UInt64> {
        let left = moment.files.crash(seed: seed &* 100_000 &+ UInt64(step) &* 10 &+ crash)
        for (index, name) in GroupBench.names.enumerated() {
          let says = "seed \(seed), step \(step), crash \(crash): \(name)"
          // The new one first: opening the old one for writing would pull it from under it.
          let new = GroupBench.newPath(name)
          if moment.isTaken {
            let after = bench.models[index]
            let bytes = try read(left, name, new)
            let isWhole = bytes.indices.allSatisfy {
              bytes[$0] == before[index][$0] || bytes[$0] == after[$0]
            }
            #expect(isWhole && bytes.count == GroupBench.size, "\(says), new")
          }
          if let difference = firstDifference(try read(left, name, "/" + name), before[index]) {
            Issue.record("\(says), old: \(difference)")
          }
        }
      }
    }
    for (index, name) in GroupBench.names.enumerated() {
      let left = files.crash(seed: seed)
      let bytes = try read(left, name, GroupBench.newPath(name))
      #expect(firstDifference(bytes, bench.models[index]) == nil, "\(name) after the last flush")
    }
    for disk in bench.disks { try disk.close() }
  }
}
