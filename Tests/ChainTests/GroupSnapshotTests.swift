import Foundation
import HostSystem
import TestSupport
import Testing

@testable import Chain

@Suite("Snapshots of several disks")
struct GroupSnapshotTests {
  @Test("all disks get their overlays, and the old images keep what they had")
  func all() throws {
    let bench = try GroupBench(seed: 1)
    try bench.scribble()
    let before = bench.models
    try bench.group.take()
    try bench.expectDisks(layers: 3, "taken")
    try bench.scribble()
    try bench.expectDisks(layers: 3, "written to")
    for disk in bench.disks { try disk.close() }
    bench.files.settle()
    for (index, name) in GroupBench.names.enumerated() {
      let new = try GroupBench.open(bench.files, name, GroupBench.newPath(name))
      #expect(firstDifference(try new.allBytes(), bench.models[index]) == nil, "\(name)")
      try new.close()
      let old = try GroupBench.open(bench.files, name, "/" + name)
      #expect(firstDifference(try old.allBytes(), before[index]) == nil, "\(name)")
      try old.close()
    }
  }

  /// Fails the next call of a file, and one after the other, until the snapshot succeeds.
  private func failEachCall(of victim: String) throws -> Int {
    for call in 1...1000 {
      let bench = try GroupBench(seed: 2)
      try bench.scribble()
      let files = bench.files
      let names = files.names
      let old = files.disk(victim)
      let isNew = old == nil
      if let old { old.inject(.fails(call: old.callCount + call)) }
      files.watch.set { change in
        if case .name = change.kind, isNew { files.disk(victim)?.inject(.fails(call: call)) }
      }
      do {
        try bench.group.take()
      } catch {
        #expect(error.cause.kind == .io, "call \(call): \(error.cause)")
        old?.inject(nil)
        files.watch.set(nil)
        #expect(files.names == names, "call \(call)")
        try bench.expectDisks(layers: 2, "call \(call)")
        // A storage that failed to flush refuses for good; the disks read on all the same.
        if old == nil {
          try bench.scribble()
          try bench.expectDisks(layers: 2, "call \(call), gone on")
          for disk in bench.disks { try disk.flush() }
          try bench.group.take()
          try bench.expectDisks(layers: 3, "call \(call), tried again")
        }
        for disk in bench.disks { try? disk.close() }
        continue
      }
      files.watch.set(nil)
      files.disk(victim)?.inject(nil)
      for disk in bench.disks { try disk.close() }
      return call
    }
    return 0
  }

  @Test(
    "a call that fails leaves all disks as they were, and no file",
    arguments: ["/vda", "/vdb", "/vda-new", "/vdb-new"])
  func failures(path: String) throws {
    #expect(try failEachCall(of: path) > 3)
  }

  @Test("a file that is there, or is given twice, refuses the whole", arguments: [false, true])
  func refused(isLast: Bool) throws {
    let bench = try GroupBench(seed: 3)
    bench.files.put("/there", [1])
    let names = bench.files.names
    func expect(_ kind: FailureKind, _ disk: String, _ paths: [String]) throws {
      let group = GroupSnapshot(zip(bench.disks, paths).map { (disk: $0, path: $1) })
      let failure = #expect(throws: GroupSnapshot.Failure.self) { try group.take() }
      #expect(failure?.cause.kind == kind && failure?.disk == disk, "\(paths)")
      #expect(bench.files.names == names)
      try bench.expectDisks(layers: 2, "\(paths)")
    }
    try expect(
      .exists, isLast ? "vdb" : "vda", isLast ? ["/new", "/there"] : ["/there", "/new"])
    try expect(
      .exists, isLast ? "vdb" : "vda", isLast ? ["/new", "/vda"] : ["/vdb", "/new"])
    try expect(.invalid, "vdb", ["/new", "/new"])
    try expect(.invalid, isLast ? "vdb" : "vda", isLast ? ["/new", "new"] : ["new", "/new"])
    try bench.scribble()
    try bench.group.take()
    try bench.expectDisks(layers: 3, "taken")
    for disk in bench.disks { try disk.close() }
  }
}

@Suite("Snapshots of several disks on the host", .enabled(if: Workbench.hasTool("qemu-img")))
struct GroupSnapshotHostTests {
  private func open(_ bench: Workbench, _ names: [String]) throws -> [Disk] {
    try names.map { name in
      try Disk.open(DeviceConfiguration(name: name, image: .qcow2(path: bench.path(name))))
    }
  }

  @Test("two names of one file, or a layer of another disk of the group, are refused")
  func oneFile() throws {
    let bench = try Workbench()
    for name in ["vda", "vdb"] { try bench.qemuImg("create", "-f", "qcow2", name, "1M") }
    try bench.run("mkdir", ["sub"])
    try bench.run("ln", ["-s", bench.path("sub"), "link"])
    try bench.qemuImg("create", "-f", "qcow2", "-b", "vda", "-F", "qcow2", "over", "1M")
    try bench.run("ln", ["over", "same"])
    let disks = try open(bench, ["vda", "vdb"])
    func failure(_ paths: [String], _ mode: SnapshotMode) -> GroupSnapshot.Failure? {
      let targets = zip(disks, paths).map { (disk: $0, path: bench.path($1)) }
      return #expect(throws: GroupSnapshot.Failure.self) {
        try GroupSnapshot(targets, mode: mode).take()
      }
    }
    let made = failure(["sub/new", "link/new"], .absolutePaths)
    #expect(made?.cause.kind == .invalid && made?.disk == "vdb")
    #expect(try FileManager.default.contentsOfDirectory(atPath: bench.path("sub")) == [])
    let there = failure(["over", "same"], .existing)
    #expect(there?.cause.kind == .invalid && there?.disk == "vdb")
    for disk in disks {
      #expect(try disk.layers().count == 1)
      try disk.put([7], at: 70_000)
      try disk.close()
    }
    for name in ["vda", "vdb", "over"] { try bench.expectClean(bench.path(name)) }
  }

  @Test("overlays that are there already are taken together, or not at all")
  func existing() throws {
    let bench = try Workbench()
    for name in ["vda", "vdb"] {
      try bench.qemuImg("create", "-f", "qcow2", name, "1M")
      try bench.qemuIO(name, ["write -P 3 0 64k"])
      try bench.qemuImg("create", "-f", "qcow2", "-b", name, "-F", "qcow2", name + "-new", "1M")
    }
    try bench.qemuImg("create", "-f", "qcow2", "-b", "vdb", "-F", "qcow2", "full", "1M")
    try bench.qemuIO("full", ["write -P 3 0 64k"])
    let disks = try open(bench, ["vda", "vdb"])
    func group(_ paths: [String]) -> GroupSnapshot {
      GroupSnapshot(
        zip(disks, paths).map { (disk: $0, path: bench.path($1)) }, mode: .existing)
    }
    for paths in [["vda-new", "full"], ["vda-new", "vda-new"], ["vdb-new", "vda-new"]] {
      #expect(throws: GroupSnapshot.Failure.self, "\(paths)") { try group(paths).take() }
      for disk in disks {
        #expect(try disk.layers().count == 1, "\(paths)")
        try disk.put([8], at: 100_000)
      }
    }
    try group(["vda-new", "vdb-new"]).take()
    for disk in disks {
      try disk.put([9], at: 9)
      #expect(try disk.layers().map(\.fileName) == [disk.name + "-new", disk.name])
      try disk.close()
      for name in [disk.name, disk.name + "-new"] { try bench.expectClean(bench.path(name)) }
      #expect(try bench.flatBytes(bench.path(disk.name))[9] == 3)
      #expect(try bench.flatBytes(bench.path(disk.name + "-new"))[9] == 9)
    }
  }
}
