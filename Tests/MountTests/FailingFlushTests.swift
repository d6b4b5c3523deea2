import Foundation
import TestSupport
import Testing

extension MountTests {
  /// A host that could not write what it had taken, once. What it says afterwards counts for nothing.
  @Suite("Flushes that fail", .serialized, .timeLimit(.minutes(2)))
  struct FailingFlushTests {
    /// A mount whose daemon fails the calls that `.faults` names, see Tests/CFaults/faults.c.
    private func mounted() throws -> Sandbox {
      let box = try Sandbox()
      let library = "\(Program.project)/Tests/CFaults"
      try box.run(
        """
        clang -shared -fPIC -o faults.so -I \(library)/include \(library)/faults.c
        qemu-img create -q -f qcow2 top.qcow2 16M
        export LD_PRELOAD=$PWD/faults.so CHAINFS_FAULTS=$(pwd -P)
        chainfs mount -o log=$PWD/log vda=top.qcow2 mnt
        """)
      return box
    }

    private func isRefused(_ box: Sandbox) throws -> Bool {
      let sync = try box.tryRun("sync mnt/vda")
      return sync.status != 0 && sync.errorOutput.contains("Input/output error")
    }

    private static let write =
      "dd if=/dev/urandom of=mnt/vda bs=4k count=1 conv=notrunc status=none"

    @Test("a failed fdatasync is told to every later fsync, and the log has one line of it")
    func failedFlushStays() throws {
      let box = try mounted()
      try box.run("\(Self.write); sync mnt/vda; dd if=mnt/vda of=safe bs=4k count=1 status=none")
      try box.run("echo fdatasync 5 top.qcow2 > .faults; \(Self.write) seek=512")
      #expect(try isRefused(box))
      try box.run("rm .faults")
      for _ in 1...3 { #expect(try isRefused(box)) }
      // What promises to be durable at once cannot be had either.
      #expect(try box.tryRun("\(Self.write) oflag=sync").status != 0)
      // The background thread has tried in the meantime.
      try box.run("sleep 1.2")
      #expect(try isRefused(box))
      let log = try box.run("cat log")
      #expect(log.contains("an earlier flush failed") && !log.contains("\n"), "\(log)")
      // Reads go on.
      try box.run("cmp -n 4096 mnt/vda safe || true; chainfs unmount mnt || true")
      #expect(try [0, 3].contains(box.tryRun("qemu-img check -q top.qcow2").status))
      try box.run(
        "chainfs mount vda=top.qcow2 mnt; \(Self.write); sync mnt/vda; chainfs unmount mnt")
      try box.run("qemu-img check -q top.qcow2")
    }

    @Test("a flush of the background thread that fails is told to the guest's next fsync")
    func backgroundFlush() throws {
      let box = try mounted()
      try box.run(
        """
        \(Self.write); sync mnt/vda; echo fdatasync 5 top.qcow2 > .faults; \(Self.write)
        until grep -q 'an earlier flush failed' log; do :; done
        rm .faults
        """)
      #expect(try isRefused(box))
      #expect(try isRefused(box))
      let log = try box.run("cat log")
      #expect(!log.contains("\n"), "\(log)")
    }

    @Test("tables that could not be written for want of room are written by the next flush")
    func tablesWithoutRoom() throws {
      let box = try mounted()
      // The write itself has its room; what fails is the flush that makes its table durable. Where the
      // background thread was there first, there is another write.
      let sync = try box.tryRun(
        """
        for n in $(seq 0 200); do
          \(Self.write) seek=$n
          echo pwrite 28 top.qcow2 > .faults
          sync mnt/vda || exit 1
          rm .faults
        done
        """)
      #expect(sync.status == 1 && sync.errorOutput.contains("No space left"), "\(sync.errorOutput)")
      try box.run(
        """
        rm .faults; sync mnt/vda; dd if=mnt/vda of=now bs=4k count=201 status=none
        pid=$(chainfs status --pid mnt); kill -9 $pid; umount -l mnt
        until [ ! -d /proc/$pid ] || grep -q "^State:.Z" /proc/$pid/status; do :; done
        qemu-img convert -O raw top.qcow2 flat; cmp -n 823296 flat now
        """)
    }
  }
}
