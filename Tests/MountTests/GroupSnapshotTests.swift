import Foundation
import HostSystem
import TestSupport
import Testing

extension MountTests {
  @Suite("Snapshots of several devices", .serialized, .timeLimit(.minutes(5)))
  struct GroupSnapshotTests {
    static let devices = ["vda", "vdb", "vdc"]

    private func mounted(_ mebibytes: Int = 64) throws -> Sandbox {
      let box = try Sandbox()
      try box.run(
        """
        for name in \(Self.devices.joined(separator: " ")); do
          qemu-img create -q -f qcow2 $name-0 \(mebibytes)M
        done
        chainfs mount -o cache=none vda=vda-0 vdb=vdb-0 vdc=vdc-0 mnt
        """)
      return box
    }

    private func snapshot(_ box: Sandbox, _ number: Int) throws {
      let words = Self.devices.map { "\($0)=$PWD/\($0)-\(number)" }.joined(separator: " ")
      try box.run("echo \"\(words)\" > mnt/.jobs/snapshot")
    }

    /// The numbers that an image holds, which stand in its sectors from the first on.
    private func numbers(_ box: Sandbox, _ image: String) throws -> [UInt64] {
      try box.run("qemu-img convert -f qcow2 -O raw \(image) flat")
      let bytes = try Data(contentsOf: URL(fileURLWithPath: box.path + "/flat"))
      var numbers: [UInt64] = []
      for sector in stride(from: 0, to: bytes.count, by: 512) {
        let number = bytes[sector..<sector + 8].reversed().reduce(UInt64(0)) {
          $0 << 8 | UInt64($1)
        }
        if number == 0 { break }
        numbers.append(number)
      }
      return numbers
    }

    /// Fails unless the images together hold all numbers up to some; gives that.
    private func check(_ box: Sandbox, _ set: Int) throws -> UInt64 {
      var all: [UInt64] = []
      for device in Self.devices { all += try numbers(box, "\(device)-\(set)") }
      all.sort()
      let last = UInt64(all.count)
      // A number that is missing moves all later ones.
      let moved = all.enumerated().first { UInt64($0.offset) + 1 != $0.element }
      #expect(moved == nil, "set \(set): \(all.suffix(4)) are the last of \(last) numbers")
      return last
    }

    @Test("what is written to one device after another stays in that order in every set")
    func order() throws {
      let box = try mounted()
      let writer = try NumberWriter(
        devices: Self.devices.map { "\(box.mountpoint)/\($0)" }, sectors: 64 << 11)
      let rounds = 24
      for round in 1...rounds {
        let start = writer.written
        try #require(writer.wait(for: start + 50), "the writer stands still")
        try snapshot(box, round)
        // A set can be read as soon as it is there, while the devices are written to.
        if round == 2 { _ = try check(box, 1) }
      }
      let end = writer.stop()
      #expect(writer.failure == 0)
      try box.run("[ $(wc -l < mnt/.jobs/vdb/chain) = \(rounds + 1) ]; chainfs unmount mnt")
      var last: UInt64 = 0
      for set in 0...rounds {
        let next = try check(box, set)
        #expect(next >= last + 50 || set == rounds, "set \(set)")
        last = next
      }
      #expect(last == end)
      for device in Self.devices {
        for set in [0, 1, rounds] { try box.run("qemu-img check -q \(device)-\(set)") }
      }
      print("sets: \(rounds), numbers: \(end)")
    }

    /// Fails unless the command is refused with this errno and sentence, and nothing has changed.
    private func expectRefusal(
      _ box: Sandbox, _ command: String, _ errno: String, _ words: String,
      told: [String] = ["vda", "vdb"]
    ) throws {
      let look = "ls -AR . | grep -v '^mnt'; cut -f 1-3,5 mnt/.jobs/vd?/chain"
      let before = try box.run(look)
      let refusal = try box.tryRun("echo \"\(command)\" > mnt/.jobs/snapshot")
      #expect(refusal.status == 1, "\(command)")
      #expect(refusal.errorOutput.contains(errno), "\(command): \(refusal.errorOutput)")
      for device in told {
        let sentence = try box.run("cat mnt/.jobs/\(device)/error")
        #expect(sentence.contains(words), "\(command): \(device): \(sentence)")
      }
      #expect(try box.run(look) == before, "\(command)")
    }

    @Test("whatever refuses one device refuses all, with its errno, and leaves no file")
    func refusals() throws {
      let box = try mounted()
      let invalid = "Invalid argument"
      try box.run(
        """
        mkdir small; mount -t tmpfs -o size=64k small small
        qemu-io -f raw -c 'write -q -P 7 0 1M' mnt/vda; echo kept > there
        """)
      let refusals = [
        ("vda=$PWD/a vdb=$PWD/there", "File exists", "there is a file already"),
        ("vda=$PWD/there vdb=$PWD/b", "File exists", "there is a file already"),
        ("vda=$PWD/a vdb=$PWD/small/b", "No space left", "No space left"),
        ("vda=$PWD/a vdb=$PWD/no/b", "No such file", "/no/b"),
        ("vda=$PWD/a vdb=$PWD/a", invalid, "the same file"),
        ("vda=$PWD/a vdb=$PWD/./a", invalid, "the same file"),
        ("vda=$PWD/a vdb=b", invalid, "absolute"),
        ("vda=$PWD/a vdb=$PWD/b vdz=$PWD/c", "No such file", "no device named vdz"),
        ("vda=$PWD/a vda=$PWD/b", invalid, "twice"),
        ("vda=$PWD/a vdb=$PWD/b mode=other", invalid, "other"),
        ("vda=$PWD/a vdb=$PWD/b format=vmdk", "not supported", "vmdk"),
        ("vda=$PWD/a $PWD/b", invalid, "names no device"),
        ("", invalid, "DEVICE=PATH"),
      ]
      for (command, errno, words) in refusals where command != "" {
        try expectRefusal(box, command, errno, words)
      }
      let empty = try box.tryRun("echo > mnt/.jobs/snapshot")
      #expect(empty.status == 1 && empty.errorOutput.contains(invalid))
      #expect(try box.run("cat there; cat mnt/.jobs/snapshot").hasPrefix("kept\nDEVICE=PATH"))
      // A job on one of them.
      try box.run(
        """
        echo $PWD/vdb-1 > mnt/.jobs/vdb/snapshot
        qemu-io -f raw -c 'write -q 0 1M' mnt/vdb; echo $PWD/vdb-2 > mnt/.jobs/vdb/snapshot
        qemu-io -f raw -c 'write -q 0 1M' mnt/vdb; echo $PWD/vdb-3 > mnt/.jobs/vdb/snapshot
        echo speed=1 > mnt/.jobs/vdb/stream
        """)
      try expectRefusal(
        box, "vda=$PWD/a vdb=$PWD/b", "resource busy", "vdb: the device has a job already")
      try box.run(
        """
        echo > mnt/.jobs/vdb/cancel; echo "vda=$PWD/a vdb=$PWD/b" > mnt/.jobs/snapshot
        [ -z "$(cat mnt/.jobs/vda/error mnt/.jobs/vdb/error)" ]
        qemu-io -f raw -c 'read -q -P 7 0 1M' mnt/vda; chainfs unmount mnt; umount small
        for image in vda-0 vdb-3 a b; do qemu-img check -q $image; done
        """)
    }

    @Test(
      "no device has the name of a file in .jobs",
      arguments: ["snapshot", "speed", "status", "metrics", "events", "monitor", "qmp"])
    func names(name: String) throws {
      let box = try Sandbox()
      try box.run("qemu-img create -q -f qcow2 image 1M")
      let refusal = try box.tryRun("chainfs mount \(name)=image mnt")
      #expect(refusal.status == 1)
      #expect(refusal.errorOutput.contains("'\(name)' cannot be a device's name"))
    }

    @Test("overlays that are there are taken together; a read-only mount refuses")
    func existing() throws {
      let box = try mounted()
      try box.run(
        """
        qemu-io -f raw -c 'write -q -P 5 0 1M' mnt/vda
        for name in vda vdb; do
          qemu-img create -q -f qcow2 -u -b $PWD/$name-0 -F qcow2 $name-1 64M
        done
        echo "vda=$PWD/vda-1 vdb=$PWD/vdb-1 mode=existing format=qcow2" > mnt/.jobs/snapshot
        qemu-io -f raw -c 'write -q -P 6 0 4k' -c 'read -q -P 5 4k 64k' mnt/vda
        chainfs unmount mnt; qemu-img check -q vda-0; qemu-img check -q vda-1
        qemu-io -r -f qcow2 -c 'read -q -P 5 0 1M' vda-0
        chainfs mount -o ro vda=vda-1 vdb=vdb-1 mnt
        """)
      try expectRefusal(box, "vda=$PWD/a vdb=$PWD/b", "Read-only file system", "read-only")
      try box.run("chainfs unmount mnt")
    }
  }
}
