import TestSupport
import Testing

extension MountTests {
  @Suite("Killed daemons", .serialized, .timeLimit(.minutes(8)))
  struct KillTests {
    /// A marker is a block of 4 KiB that repeats its number; the writer notes the number only after
    /// fsync came back. Whatever is noted must be on the disk after the next mount.
    @Test("every fsync'd marker survives kill -9, twenty times")
    func markersSurvive() throws {
      let box = try Sandbox()
      try box.run(
        """
        qemu-img create -q -f qcow2 base.qcow2 64M
        qemu-io -f qcow2 -c 'write -q -P 85 0 64M' base.qcow2
        qemu-img create -q -f qcow2 -b base.qcow2 -F qcow2 top.qcow2
        cat > writer <<'END'
        place=$1
        number=$2
        while :; do
          number=$((number + 1))
          # Scattered over the disk, so that markers need clusters and tables of their own.
          block=$((number * 2657 % 16384))
          printf '%0512d' $number > block.$place
          for i in 1 2 3; do cat block.$place block.$place > block2.$place
            mv block2.$place block.$place; done
          dd if=block.$place of=mnt/vda bs=4096 seek=$block count=1 conv=notrunc,fsync \\
            2>/dev/null || exit 0
          echo "$number $block" >> noted
        done
        END
        touch noted
        """)
      for round in 1...20 {
        try box.run("chainfs mount vda=top.qcow2 mnt")
        if round.isMultiple(of: 3) { try box.run("chainfs stream --speed 2M mnt/vda || true") }
        // Later rounds live a little longer, so that the kill meets every phase of the flushes.
        try box.run(
          """
          bash writer a $(wc -l < noted) & writer=$!
          pid=$(chainfs status --pid mnt)
          sleep 0.$((\(round) * 37 % 90 + 10))
          kill -9 $pid
          wait $writer || true
          umount -l mnt
          until [ ! -d /proc/$pid ] || grep -q "^State:.Z" /proc/$pid/status; do :; done
          """)
        let check = try box.tryRun("qemu-img check --output=json top.qcow2")
        #expect(check.status == 0 || check.status == 3, "round \(round): \(check.output)")
        #expect(!check.output.contains("\"corruptions\""), "round \(round): \(check.output)")
      }
      try box.run("chainfs mount -o noresume vda=top.qcow2 mnt")
      // The latest marker of each block counts; blocks repeat only after 16384 markers.
      let missing = try box.run(
        """
        while read -r number block; do
          dd if=mnt/vda bs=4096 skip=$block count=1 2>/dev/null | head -c 512 |
            grep -qx "$(printf '%0512d' $number)" || echo $number
        done < noted
        """, seconds: 200)
      #expect(missing == "")
      #expect(try Int(box.run("wc -l < noted")) ?? 0 > 100)
      try box.run("chainfs unmount mnt")
    }

    @Test("SIGTERM unmounts cleanly and leaves no leak", arguments: ["TERM", "INT"])
    func terminates(signal: String) throws {
      let box = try Sandbox()
      try box.run(
        """
        qemu-img create -q -f qcow2 top.qcow2 64M; chainfs mount vda=top.qcow2 mnt
        dd if=/dev/urandom of=mnt/vda bs=1M count=8 conv=notrunc 2>/dev/null
        sha256sum < mnt/vda > sum
        pid=$(chainfs status --pid mnt)
        kill -\(signal) $pid
        until [ ! -d /proc/$pid ] || grep -q "^State:.Z" /proc/$pid/status; do :; done
        qemu-img check -q top.qcow2
        qemu-img convert -O raw top.qcow2 flat; sha256sum < flat | cmp - sum
        """)
      #expect(try box.run("grep -c ' \(box.mountpoint) ' /proc/mounts || true") == "0")
    }
  }
}
