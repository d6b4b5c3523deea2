import TestSupport
import Testing

extension MountTests {
  @Suite("The device file", .serialized, .timeLimit(.minutes(4)))
  struct DeviceTests {
    private func mounted(_ options: String = "") throws -> Sandbox {
      let box = try Sandbox()
      try box.run(
        """
        qemu-img create -q -f qcow2 base.qcow2 16M
        qemu-io -f qcow2 -c 'write -q -P 1 0 16M' base.qcow2
        qemu-img create -q -f qcow2 -b base.qcow2 -F qcow2 top.qcow2
        chainfs mount \(options) vda=top.qcow2 mnt
        """)
      return box
    }

    @Test("its size is fixed: O_TRUNC is ignored, truncate is EPERM, its end is ENOSPC")
    func fixedSize() throws {
      let box = try mounted()
      try box.run("printf xyz > mnt/vda")
      #expect(
        try box.run("stat -c %s mnt/vda; head -c 4 mnt/vda | od -An -c | tr -d ' '")
          == "16777216\nxyz001")
      let truncate = try box.tryRun("truncate -s 1M mnt/vda")
      #expect(truncate.errorOutput.contains("Operation not permitted"))
      let grow = try box.tryRun("truncate -s 32M mnt/vda")
      #expect(grow.errorOutput.contains("Operation not permitted"))
      let end = try box.tryRun("dd if=/dev/zero of=mnt/vda bs=4k seek=4096 count=1 conv=notrunc")
      #expect(end.errorOutput.contains("No space left on device"))
      let over = try box.tryRun(
        "head -c 8192 /dev/urandom > x; dd if=x of=mnt/vda bs=8k oflag=seek_bytes "
          + "seek=16773120 conv=notrunc")
      #expect(over.errorOutput.contains("No space left on device"))
      let direct = try box.tryRun(
        "dd if=x of=mnt/vda bs=8k oflag=seek_bytes,direct seek=16773120 conv=notrunc")
      #expect(direct.errorOutput.contains("No space left on device"), "\(direct.errorOutput)")
      try box.run("cmp <(head -c 4096 x) <(tail -c 4096 mnt/vda)")
      #expect(try box.run("dd if=mnt/vda bs=4k skip=4096 2>/dev/null | wc -c") == "0")
      try box.run("chainfs unmount mnt; qemu-img check -q top.qcow2")
    }

    @Test(
      "an open with O_TRUNC leaves the size and what others just wrote",
      arguments: ["none", "readback", "writeback"])
    func truncatingOpen(cache: String) throws {
      let box = try mounted("-o cache=\(cache)")
      try box.run(
        """
        exec 3<>mnt/vda
        head -c 65536 /dev/zero | tr '\\0' A | dd of=mnt/vda bs=64k seek=16 conv=notrunc 2>/dev/null
        printf x > mnt/vda
        : > mnt/vda
        """)
      #expect(try box.run("stat -c %s mnt/vda") == "16777216")
      #expect(
        try box.run("dd if=mnt/vda bs=64k skip=16 count=1 2>/dev/null | tr -d A | wc -c") == "0")
      #expect(try box.run("head -c 2 mnt/vda | od -An -c | tr -d ' '") == "x001")
      try box.run("chainfs unmount mnt; qemu-img check -q top.qcow2")
      try box.run("qemu-io -f qcow2 -c 'read -q -P 65 1M 64k' -c 'read -q -P 1 2M 14M' top.qcow2")
    }

    @Test("growable lets it grow over a longer base, with zeroes, and never shrink")
    func growable() throws {
      let box = try Sandbox()
      try box.run(
        """
        qemu-img create -q -f qcow2 base.qcow2 16M
        qemu-io -f qcow2 -c 'write -q -P 1 0 16M' base.qcow2
        qemu-img create -q -f qcow2 -b base.qcow2 -F qcow2 top.qcow2 8M
        chainfs mount -o growable vda=top.qcow2 mnt
        truncate -s 16M mnt/vda
        """)
      #expect(try box.run("stat -c %s mnt/vda") == "16777216")
      try box.run("cmp -n 8388608 <(tail -c +8388609 mnt/vda) /dev/zero")
      #expect(try box.tryRun("truncate -s 4M mnt/vda").status == 1)
      // Clusters of 64 KiB make no disk of more than 2 PiB.
      let tooLarge = try box.tryRun("LC_ALL=C truncate -s 4P mnt/vda")
      #expect(tooLarge.status == 1 && tooLarge.errorOutput.contains("File too large"))
      try box.run("chainfs unmount mnt; qemu-img check -q top.qcow2")
      #expect(try box.run("qemu-img info top.qcow2 | grep -c '16 MiB (16777216 bytes)'") == "1")
      try box.run("qemu-io -f qcow2 -c 'read -q -P 0 8M 8M' -c 'read -q -P 1 0 8M' top.qcow2")
    }

    @Test(
      "punched, zeroed and discarded ranges read zero over a backing file",
      arguments: ["", "-o discard=ignore"])
    func zeroes(options: String) throws {
      let box = try mounted(options)
      try box.run(
        """
        truncate -s 16M model; head -c 16777216 /dev/zero | tr '\\0' '\\1' > model
        for file in mnt/vda model; do
          fallocate -p -o 1000 -l 200000 $file
          fallocate -p -o 4M -l 1M $file
          fallocate -z -o 5M -l 65537 $file
          head -c 70000 /dev/zero | dd of=$file bs=1M seek=6 conv=notrunc,fsync 2>/dev/null
        done
        cmp mnt/vda model
        fallocate -o 8M -l 1M mnt/vda
        cmp mnt/vda model
        chainfs unmount mnt
        qemu-img check -q top.qcow2
        qemu-img compare -q -F raw top.qcow2 model
        """)
    }

    @Test("fstrim of a file system on it gives the space back")
    func trims() throws {
      let box = try Sandbox()
      try box.run(
        """
        qemu-img create -q -f qcow2 top.qcow2 128M; mkdir fs; chainfs mount vda=top.qcow2 mnt
        losetup -f --show mnt/vda > loop; mkfs.ext4 -q $(cat loop); mount $(cat loop) fs
        head -c 50000000 /dev/urandom > fs/large; sync
        """)
      let full = try #require(Int(box.run("du -k top.qcow2 | cut -f1")))
      try box.run("rm fs/large; sync; fstrim fs; umount fs; losetup -d $(cat loop); sync mnt/vda")
      try box.run("chainfs unmount mnt; qemu-img check -q top.qcow2")
      let trimmed = try #require(Int(box.run("du -k top.qcow2 | cut -f1")))
      #expect(full - trimmed > 40_000)
    }

    @Test("it is a file for every tool: holes, blocks, O_DIRECT, mmap, statfs, touch")
    func fileLike() throws {
      let box = try Sandbox()
      try box.run(
        """
        qemu-img create -q -f qcow2 top.qcow2 16M; chainfs mount vda=top.qcow2 mnt
        head -c 1048576 /dev/urandom > noise
        dd if=noise of=mnt/vda bs=64k seek=64 oflag=direct conv=notrunc,fsync 2>/dev/null
        dd if=mnt/vda bs=64k skip=64 count=16 iflag=direct 2>/dev/null | cmp - noise
        touch -d @5 mnt/vda; stat -f mnt/vda > /dev/null; stat -c %z mnt/vda > changed
        dd if=noise of=mnt/vda bs=64k count=1 conv=notrunc 2>/dev/null
        [ $(stat -c %Y mnt/vda) -gt 5 ]; ! stat -c %z mnt/vda | cmp -s - changed
        """)
      #expect(try box.run("stat -c %o mnt/vda") == "65536")
      // A mebibyte of data, and the tables.
      let blocks = try #require(Int(box.run("stat -c %b mnt/vda")))
      #expect((2048..<4096).contains(blocks))
      #expect(try box.run("ls mnt; ls -A mnt") == "vda\n.chain\n.jobs\nvda")
      try box.run(
        """
        cp --sparse=auto mnt/vda copy; cmp copy mnt/vda
        [ $(du -k copy | cut -f1) -le 1100 ]
        fio --name=map --filename=mnt/vda --ioengine=mmap --rw=randwrite --bs=4k --size=4M \
          --verify=crc32c --output=fio.log
        chainfs unmount mnt; qemu-img check -q top.qcow2
        """)
    }

    @Test("a file system survives on a loop device with direct I/O", arguments: ["ext4", "xfs"])
    func guestFileSystem(kind: String) throws {
      let box = try Sandbox()
      try box.run(
        """
        qemu-img create -q -f qcow2 base.qcow2 512M
        qemu-img create -q -f qcow2 -b base.qcow2 -F qcow2 top.qcow2
        mkdir fs; chainfs mount vda=top.qcow2 mnt
        losetup -f --direct-io=on --show mnt/vda > loop
        mkfs.\(kind) -q $(cat loop); mount $(cat loop) fs
        mkdir fs/tree; for i in $(seq 200); do head -c $((i * 997)) /dev/urandom > fs/tree/$i; done
        (cd fs && sha256sum tree/*) > sums; umount fs; mount $(cat loop) fs
        (cd fs && sha256sum --quiet -c) < sums
        umount fs
        \(kind == "ext4" ? "e2fsck -fn" : "xfs_repair -n") $(cat loop) > check.log 2>&1
        losetup -d $(cat loop); chainfs unmount mnt; qemu-img check -q top.qcow2
        """, seconds: 120)
    }

    @Test("snapshots under load keep every layer's bytes")
    func snapshots() throws {
      let box = try mounted()
      try box.run(
        """
        for i in 1 2 3; do
          head -c 300000 /dev/urandom |
            dd of=mnt/vda bs=1M seek=$((i * 3)) conv=notrunc,fsync 2>/dev/null
          cp mnt/vda state$i
          echo "$PWD/s$i.qcow2" > mnt/.jobs/vda/snapshot
        done
        head -c 100000 /dev/urandom | dd of=mnt/vda bs=1M seek=1 conv=notrunc 2>/dev/null
        cp mnt/vda state4
        chainfs unmount mnt
        qemu-img compare -q -F raw top.qcow2 state1
        qemu-img compare -q -F raw s1.qcow2 state2
        qemu-img compare -q -F raw s2.qcow2 state3
        qemu-img compare -q -F raw s3.qcow2 state4
        for image in top s1 s2 s3; do qemu-img check -q $image.qcow2; done
        """)
    }
  }
}
