import Foundation
import HostSystem
import TestSupport
import Testing

extension MountTests {
  @Suite("Jobs beyond the end of a mount", .serialized, .timeLimit(.minutes(5)))
  struct ResumeTests {
    /// How far a job has come when its mount ends.
    enum Phase: String, CaseIterable {
      case started
      case running
      case paused
      case inSnapshots
      case ending
    }

    /// How the mount ends.
    enum End: String {
      case unmount
      case kill
      case terminate
    }

    @Test(
      "a job goes on by itself and comes to the same end, wherever its mount ended",
      arguments: Phase.allCases.map { ($0, End.kill) } + [
        (.running, .unmount), (.paused, .terminate), (.inSnapshots, .unmount),
      ])
    func goesOn(phase: Phase, end: End) throws {
      let box = try Sandbox()
      try box.run(Self.chain)
      try box.run("chainfs mount vda=top.qcow2 mnt")
      try reach(phase, box)
      try finish(end, box)
      let isLeft = FileManager.default.fileExists(atPath: "\(box.path)/.top.qcow2.chainfs-job")
      #expect(isLeft || phase == .ending)
      try box.run("chainfs mount vda=top.qcow2 mnt")
      let status = try box.status()
      if isLeft { #expect(status["resumed"] == "yes", "\(status)") }
      if phase == .paused {
        #expect(status["state"] == "paused", "\(status)")
        try box.run("chainfs resume mnt/vda")
      }
      // The limit was part of the job, and has done its work.
      if phase != .ending { try box.run("chainfs speed mnt/vda 0") }
      try box.run("cat mnt/.jobs/vda/wait > ended")
      if isLeft { #expect(try box.status()["state"] == "completed") }
      #expect(try box.run("wc -l < mnt/.jobs/vda/chain") == "1")
      try box.run(
        """
        cmp mnt/vda disk.raw; chainfs unmount mnt; qemu-img check -q top.qcow2
        qemu-img compare -q top.qcow2 disk.raw
        qemu-img convert -O raw -l snapshot.name=s1 top.qcow2 s1; cmp s1 s1.raw
        [ ! -e .top.qcow2.chainfs-job ]
        """)
    }

    @Test("what was copied becomes durable while the job goes on", arguments: ["200K", "6M"])
    func durable(speed: String) throws {
      let box = try Sandbox()
      try box.run(
        """
        qemu-img create -q -f qcow2 base.qcow2 64M; qemu-io -f qcow2 -c 'write -q 0 64M' base.qcow2
        qemu-img create -q -f qcow2 -b base.qcow2 -F qcow2 top.qcow2
        chainfs mount vda=top.qcow2 mnt; chainfs stream --speed \(speed) mnt/vda
        """)
      // That it takes two seconds at most is shown with a clock that is not the machine's, in JobsTests.
      let copied = try wait(box, "copied", atLeast: 1)
      let durable = try wait(box, "durable", atLeast: copied)
      try finish(.kill, box)
      // At least as much is in the image as was said.
      let there = try box.run(
        """
        qemu-img map --output=json top.qcow2 |
          awk -F'[ ,]+' '/"depth": 0/ { for (i = 1; i < NF; i++) if ($i == "\\"length\\":") n += $(i + 1) }
            END { print n + 0 }'
        """)
      #expect(try #require(UInt64(there)) >= durable)
    }

    // MARK: - Parts

    /// An overlay with a snapshot in it, over a base that fills half of the disk.
    private static let chain = """
      qemu-img create -q -f qcow2 base.qcow2 48M; qemu-io -f qcow2 -c 'write -q -P 1 0 24M' base.qcow2
      qemu-img create -q -f qcow2 -b base.qcow2 -F qcow2 top.qcow2
      qemu-io -f qcow2 -c 'write -q -P 2 2M 1M' top.qcow2; qemu-img snapshot -c s1 top.qcow2
      qemu-io -f qcow2 -c 'write -q -P 3 2560k 9M' top.qcow2
      qemu-img convert -O raw top.qcow2 disk.raw
      qemu-img convert -O raw -l snapshot.name=s1 top.qcow2 s1.raw
      """

    private func reach(_ phase: Phase, _ box: Sandbox) throws {
      switch phase {
      case .started: try box.run("chainfs stream --speed 1M mnt/vda")
      case .running:
        try box.run("chainfs stream --speed 4M mnt/vda")
        try wait(until: 4 << 20, box)
      case .paused: try box.run("chainfs stream --speed 4M mnt/vda; chainfs pause mnt/vda")
      case .inSnapshots:
        // Fast through the disk, which is looked at first, and slow behind it.
        try box.run("chainfs stream --speed 12M mnt/vda")
        try wait(until: 49 << 20, box)
        try box.run("chainfs speed mnt/vda 100K")
      case .ending:
        try box.run("chainfs stream mnt/vda")
        try wait(until: 70 << 20, box)
      }
    }

    /// Waits until the job has looked at so much, or is over.
    private func wait(until offset: UInt64, _ box: Sandbox) throws {
      for _ in 0..<2000 {
        let status = try box.status()
        let seen = ["copied", "zero", "skipped"].reduce(0) { $0 + (UInt64(status[$1] ?? "") ?? 0) }
        if seen >= offset || status["state"] != "running" { return }
        usleep(2000)
      }
      Issue.record("the job does not come to \(offset)")
    }

    /// Waits until the job's status names a number that is large enough, and gives it.
    private func wait(_ box: Sandbox, _ key: String, atLeast least: UInt64) throws -> UInt64 {
      for _ in 0..<6000 {
        let found = UInt64(try box.status()[key] ?? "") ?? 0
        if found >= least { return found }
        usleep(10_000)
      }
      throw CommandFailure(description: "\(key) does not come to \(least): \(try box.status())")
    }

    private func finish(_ end: End, _ box: Sandbox) throws {
      let gone = """
        until [ ! -d /proc/$pid ] || grep -q "^State:.Z" /proc/$pid/status; do :; done
        """
      switch end {
      case .unmount: try box.run("chainfs unmount mnt")
      case .kill:
        try box.run("pid=$(chainfs status --pid mnt); kill -9 $pid; umount -l mnt\n\(gone)")
      case .terminate: try box.run("pid=$(chainfs status --pid mnt); kill $pid\n\(gone)")
      }
    }
  }
}
