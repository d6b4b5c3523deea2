import Foundation
import TestSupport
import Testing

extension MountTests {
  /// File systems that are too small for what is written to the disk.
  ///
  /// CHAINFS_FULL_DISK_ROUNDS=100 makes the rounds that are wanted of a release; a few are the default.
  @Suite("Full disks", .serialized, .timeLimit(.minutes(20)))
  struct FullDiskTests {
    enum Place: String, CaseIterable, Sendable {
      case tmpfs = "a tmpfs of 64 MiB"
      case ext4 = "an ext4 of 200 MiB on a loop device"

      /// The size of the disk, several times that of its place.
      var mebibytes: Int { self == .tmpfs ? 192 : 512 }

      /// Mounts it at `images`.
      var mount: String {
        switch self {
        case .tmpfs: "mount -t tmpfs -o size=64M full images"
        case .ext4: "truncate -s 200M host; mkfs.ext4 -q -m 0 host; mount -o loop host images"
        }
      }

      /// Mounts it, and makes the image there and its first layer outside of it.
      var script: String {
        """
        mkdir images; \(mount)
        qemu-img create -q -f qcow2 base.qcow2 \(mebibytes)M
        qemu-io -f qcow2 -c 'write -q -P 85 0 \(mebibytes)M' base.qcow2
        qemu-img create -q -f qcow2 -b $PWD/base.qcow2 -F qcow2 images/top.qcow2
        """
      }
    }

    static var rounds: Int {
      ProcessInfo.processInfo.environment["CHAINFS_FULL_DISK_ROUNDS"].flatMap { Int($0) } ?? 4
    }

    /// The daemon held still: what is on its files is what a kill would leave.
    private func check(_ box: Sandbox, _ when: String, _ image: String = "images/top.qcow2") throws
    {
      let check = try box.tryRun(
        """
        pid=$(chainfs status --pid mnt); kill -STOP $pid
        qemu-img check -U --output=json \(image); status=$?
        kill -CONT $pid; exit $status
        """)
      #expect(
        check.status == 0 || check.status == 3, "\(when): \(check.output)\(check.errorOutput)")
      #expect(!check.output.contains("\"corruptions\""), "\(when): \(check.output)")
    }

    /// The bytes that are free where the image is.
    private func room(_ box: Sandbox) throws -> Int {
      var status = statvfs()
      try #require(statvfs(box.path + "/images", &status) == 0)
      return Int(status.f_bavail * status.f_frsize)
    }

    @Test(
      "a disk that is filled, and given room again, keeps every byte, round after round",
      arguments: Place.allCases)
    func fillAndFree(place: Place) throws {
      let box = try Sandbox()
      var random = Seed.generator("fillAndFree \(place)")
      try box.run(
        """
        \(place.script)
        for n in $(seq 8); do head -c 1M /dev/zero > images/ballast$n; done
        chainfs mount -o log=$PWD/log vda=images/top.qcow2 mnt
        """)
      let descriptor = open(box.device, O_RDWR | O_CLOEXEC)
      try #require(descriptor >= 0)
      let disk = SectorModel(
        device: descriptor, sectors: place.mebibytes << 11, initial: 85)
      var (writes, refusals, ballast) = (0, 0, 8)
      for round in 1...Self.rounds {
        // As the guest does: on and on, until it is told.
        var isFull = false
        while !isFull {
          let sectors = [1, 3, 8, 24, 128, 400, 512].randomElement(using: &random) ?? 1
          let first = Int.random(in: 0...disk.count - sectors, using: &random)
          let number = disk.write(first, sectors)
          writes += 1
          isFull = number != 0
          if isFull { #expect(number == ENOSPC, "round \(round)") }
          if random.oneIn(25), fsync(disk.device) != 0 {
            #expect(errno == ENOSPC, "fsync in round \(round)")
            isFull = true
          }
        }
        refusals += 1
        #expect(disk.firstFault() == nil, "round \(round), full")
        try check(box, "round \(round), full")
        // What has its place is written to on a full disk as well.
        let old = try #require(
          disk.data(near: Int.random(in: 0..<disk.count, using: &random), atMost: 64))
        #expect(disk.write(old.lowerBound, old.count) == 0, "round \(round), in place")
        if round % 4 == 1 {
          // A new image takes little: nothing may be left.
          let refusal = try box.tryRun(
            """
            head -c 64M /dev/zero > images/rest
            chainfs snapshot mnt/vda $PWD/images/no.qcow2; status=$?
            rm images/rest; exit $status
            """)
          try #require(refusal.status != 0, "round \(round): a snapshot was made on a full disk")
          #expect(refusal.errorOutput.contains("No space left"), "\(refusal.errorOutput)")
          #expect(try box.run("ls images").contains("no.qcow2") == false)
        }
        let isGuests = round % 3 == 0 || ballast == 0
        if isGuests {
          // Room that the guest itself gives back.
          for count in 1...64 {
            if count % 8 == 0 {
              #expect(fsync(disk.device) == 0, "round \(round): errno \(errno)")
              if try room(box) > 4 << 20 { break }
            }
            let middle = Int.random(in: 0..<disk.count, using: &random)
            guard let data = disk.data(near: middle, atMost: 2048) else { continue }
            // Whole clusters: parts of them would be zeroed in their place.
            let first = data.lowerBound / 128 * 128
            let end = min(disk.count, (data.upperBound + 127) / 128 * 128)
            #expect(disk.punch(first, end - first) == 0, "round \(round), punch")
          }
        } else {
          try box.run("rm images/ballast\(ballast)")
          ballast -= 1
          #expect(try room(box) > 900 << 10, "round \(round), freed")
        }
        #expect(fsync(disk.device) == 0, "round \(round): fsync with room, errno \(errno)")
        for _ in 0..<4 {
          let first = Int.random(in: 0...disk.count - 128, using: &random)
          let before = try room(box)
          let number = disk.write(first, 8)
          // A write takes a cluster, and seldom a table for it.
          #expect(
            number == 0 || number == ENOSPC && before < 512 << 10,
            "round \(round), \(before) bytes of room: \(number)")
        }
        try check(box, "round \(round), with room")
        // Less room again: the next rounds begin nearly full.
        while isGuests, ballast < 8, try room(box) > 1200 << 10 {
          ballast += 1
          try box.run("head -c 1M /dev/zero > images/ballast\(ballast)")
        }
      }
      print("\(place.rawValue): \(Self.rounds) rounds, \(writes) writes, \(refusals) times full")
      #expect(disk.firstFault() == nil, "at the end")
      // Closed as full as it is, and opened again.
      try box.run("head -c 64M /dev/zero > images/rest || true")
      try disk.reopened {
        try box.run(
          """
          chainfs unmount mnt; qemu-img check -q images/top.qcow2
          chainfs mount vda=images/top.qcow2 mnt
          """)
        return open(box.device, O_RDWR | O_CLOEXEC)
      }
      #expect(disk.firstFault() == nil, "opened again")
      #expect(disk.written > 0)
    }

    @Test(
      "a stream that meets a full disk stops, goes on where there is room, and ends right",
      arguments: Place.allCases, ["stop", "enospc"])
    func streamStops(place: Place, policy: String) throws {
      let box = try Sandbox()
      try box.run(
        """
        mkdir images; \(place.mount)
        qemu-img create -q -f qcow2 base.qcow2 32M
        qemu-io -f qcow2 -c 'write -q -P 85 0 12M' base.qcow2
        """)
      let rounds = (Self.rounds + 3) / 4
      for round in 1...rounds {
        try box.run(
          """
          qemu-img create -q -f qcow2 -b $PWD/base.qcow2 -F qcow2 images/top.qcow2
          chainfs mount vda=images/top.qcow2 mnt
          qemu-io -f raw -c 'write -q -P 7 1M 100k' -c 'write -q -P 8 20M 64k' mnt/vda
          qemu-img convert -f raw -O raw mnt/vda expected
          echo 'speed=8M on-error=\(policy)' > mnt/.jobs/vda/stream
          free=$(df -B1 --output=avail images | tail -1)
          fallocate -l $((free - 2097152)) images/filler || true
          until grep -q '^state: stopped' mnt/.jobs/vda/status; do
            if grep -q '^No active' mnt/.jobs/vda/status; then exit 9; fi
          done
          """)
        #expect(try box.status()["state"] == "stopped-on-error")
        #expect(try box.run("cat mnt/.jobs/vda/error").contains("No space left"))
        #expect(try box.run("cat mnt/.jobs/vda/status.json").contains("nospace"))
        try check(box, "round \(round), stopped")
        // The guest goes on where it has its place, and sees what it saw.
        try box.run(
          """
          qemu-io -f raw -c 'write -q -P 9 1050k 10k' mnt/vda
          qemu-io -f raw -c 'write -q -P 9 1050k 10k' expected
          cmp mnt/vda expected
          """)
        // A megabyte lets it go on for a megabyte.
        let copied = try Int(box.status()["copied"] ?? "") ?? 0
        try box.run(
          """
          size=$(stat -c %s images/filler); truncate -s $((size - 1048576)) images/filler
          echo > mnt/.jobs/vda/resume
          until grep -q '^state: stopped' mnt/.jobs/vda/status; do
            if grep -q '^No active' mnt/.jobs/vda/status; then exit 9; fi
          done
          """)
        #expect(try Int(box.status()["copied"] ?? "") ?? 0 > copied)
        try check(box, "round \(round), stopped again")
        try box.run(
          """
          rm images/filler; echo 0 > mnt/.jobs/vda/speed
          echo > mnt/.jobs/vda/resume; cat mnt/.jobs/vda/wait
          """)
        #expect(try box.status()["state"] == "completed")
        try box.run(
          """
          cmp mnt/vda expected; chainfs unmount mnt; qemu-img check -q images/top.qcow2
          [ $(qemu-img info images/top.qcow2 | grep -c '^backing') = 0 ]
          [ -z "$(ls -A images | grep chainfs-job)" ]
          rm images/top.qcow2
          """)
      }
    }
  }
}
