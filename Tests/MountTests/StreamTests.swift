import TestSupport
import Testing

extension MountTests {
  @Suite("A chain with a guest file system", .serialized, .timeLimit(.minutes(5)))
  struct StreamTests {
    @Test("the device file has the bytes that qemu-img converts the chain to")
    func readsAsConvert() throws {
      let box = try Sandbox()
      try GuestChain.make(in: box)
      let expected = try box.run("qemu-img convert -O raw sn3.qcow2 flat; sha256sum < flat")
      try box.run("chainfs mount vda=sn3.qcow2 mnt")
      #expect(try box.run("sha256sum < mnt/vda") == expected)
      #expect(try box.run("stat -c %s mnt/vda") == "\(GuestChain.mebibytes << 20)")
      try box.run("chainfs unmount mnt")
      #expect(try box.run("sha256sum < expected.raw") == expected)
    }

    @Test("a stream to the base leaves the overlay on the base alone, and the same disk")
    func streamToBase() throws {
      let box = try Sandbox()
      try GuestChain.make(in: box)
      try box.run("sha256sum base.qcow2 sn1.qcow2 sn2.qcow2 > below.sums")
      try box.run("chainfs mount vda=sn3.qcow2 mnt")
      try box.run("echo base=base.qcow2 > mnt/.jobs/vda/stream; cat mnt/.jobs/vda/wait")
      #expect(try box.status()["state"] == "completed")
      #expect(try box.run("wc -l < mnt/.jobs/vda/chain") == "2")
      try box.run("cmp mnt/vda expected.raw; chainfs unmount mnt")
      try box.run("qemu-img check -q sn3.qcow2")
      try box.run("qemu-img compare -q sn3.qcow2 expected.raw")
      let chain = try box.run(
        "qemu-img info --backing-chain --output=json sn3.qcow2 | grep -o '\"filename\": \"[^\"]*'"
          + " | sed 's/.*\"//' | grep -v '^$' | sort -u")
      #expect(chain == "base.qcow2\nsn3.qcow2")
      let named = try box.run(
        "qemu-img info sn3.qcow2 | grep -E '^backing file( format)?:' | sed 's/ (.*//'")
      #expect(named == "backing file: base.qcow2\nbacking file format: qcow2")
      try box.run("sha256sum --quiet -c below.sums")
    }

    @Test("a stream of the whole chain drops the backing file and the locks of the layers")
    func streamAll() throws {
      let box = try Sandbox()
      try GuestChain.make(in: box)
      try box.run("chainfs mount vda=sn3.qcow2 mnt; chainfs stream --wait mnt/vda")
      #expect(try box.run("wc -l < mnt/.jobs/vda/chain") == "1")
      // Unlocked while still mounted: qemu can write to a layer that left the chain.
      try box.run("qemu-io -f qcow2 -c 'write -q -P 9 0 64k' sn2.qcow2")
      let refused = try box.tryRun("qemu-io -f qcow2 -c 'write -q -P 9 0 64k' sn3.qcow2")
      #expect(refused.status != 0 && refused.errorOutput.contains("lock"))
      try box.run("cmp mnt/vda expected.raw; chainfs unmount mnt")
      try box.run("qemu-img check -q sn3.qcow2; qemu-img compare -q sn3.qcow2 expected.raw")
      #expect(try box.run("qemu-img info sn3.qcow2 | grep -c '^backing' || true") == "0")
    }

    @Test("fio verifies what it wrote through loop and ext4 while the chain below is streamed")
    func streamUnderFio() throws {
      let box = try Sandbox()
      try GuestChain.make(in: box)
      try box.run("sha256sum base.qcow2 sn1.qcow2 sn2.qcow2 > below.sums; mkdir fs")
      try box.run("chainfs mount vda=sn3.qcow2 mnt")
      try box.run("losetup -f --show mnt/vda > loop; mount $(cat loop) fs")
      try box.run("echo 'base=base.qcow2 speed=2M' > mnt/.jobs/vda/stream")
      try box.run(
        """
        fio --name=verify --directory=fs --size=40M --rw=randrw --bsrange=512-64k \
          --ioengine=psync --numjobs=2 --fsync=16 --verify=crc32c --verify_fatal=1 \
          --do_verify=1 --verify_backlog=64 --output=fio.log
        """, seconds: 150)
      try box.run("chainfs speed mnt/vda 0 || true; cat mnt/.jobs/vda/wait", seconds: 120)
      #expect(try box.status()["state"] == "completed")
      try box.run("rm -f fs/verify*; fstrim fs; umount fs; e2fsck -fn $(cat loop)")
      try box.run("losetup -d $(cat loop); chainfs unmount mnt")
      try box.run("qemu-img check -q sn3.qcow2; sha256sum --quiet -c below.sums")
      try box.run("qemu-img convert -O raw sn3.qcow2 flat; e2fsck -fn flat")
      #expect(
        try box.run("qemu-img info sn3.qcow2 | grep '^backing file:' | cut -d' ' -f3")
          == "base.qcow2")
    }

    @Test(
      "a full stream keeps both internal snapshots of the overlay, also over a cancel and a kill")
    func streamWithSnapshots() throws {
      let box = try Sandbox()
      try GuestChain.make(in: box)
      try box.run(
        """
        qemu-img snapshot -c first sn3.qcow2
        qemu-io -f qcow2 -c 'write -q -P 9 20M 300k' -c 'write -q -P 8 100M 1M' sn3.qcow2
        qemu-img snapshot -c second sn3.qcow2
        qemu-io -f qcow2 -c 'write -q -P 7 20M 100k' sn3.qcow2
        for name in first second; do qemu-img convert -l $name -O raw sn3.qcow2 $name.raw; done
        qemu-img convert -O raw sn3.qcow2 active.raw
        sha256sum base.qcow2 sn1.qcow2 sn2.qcow2 > below.sums
        chainfs mount vda=sn3.qcow2 mnt
        """)
      let plan = try box.run("cat mnt/.jobs/vda/plan")
      try box.run("chainfs stream --speed 8M mnt/vda")
      let line = try box.run("head -1 mnt/.jobs/vda/status")
      #expect(line.contains(" of \(2 * GuestChain.mebibytes << 20) bytes"), "\(line) \(plan)")
      try box.run(
        "until [ $(sed -n 's/^copied: //p' mnt/.jobs/vda/status) -gt 2097152 ]; do :; done")
      try box.run("echo > mnt/.jobs/vda/cancel; cat mnt/.jobs/vda/wait")
      // Past the disk itself, so that the kill comes while snapshots are filled.
      try box.run(
        """
        chainfs stream mnt/vda
        until [ $(sed -n 's/^copied: //p' mnt/.jobs/vda/status) -gt 20971520 ]; do
          ! grep -q '^No active' mnt/.jobs/vda/status || break
        done
        kill -9 $(chainfs status --pid mnt); umount -l mnt
        until chainfs mount vda=sn3.qcow2 mnt 2>err; do grep -q lock err; done
        cat mnt/.jobs/vda/wait
        [ $(wc -l < mnt/.jobs/vda/chain) = 1 ] || chainfs stream --wait mnt/vda
        """)
      #expect(try box.run("wc -l < mnt/.jobs/vda/chain") == "1")
      try box.run("cmp mnt/vda active.raw; chainfs unmount mnt; sha256sum --quiet -c below.sums")
      try box.run("mkdir away; mv base.qcow2 sn1.qcow2 sn2.qcow2 away")
      for name in ["first", "second"] {
        try box.run("qemu-img convert -l \(name) -O raw sn3.qcow2 now; cmp now \(name).raw")
      }
      // What the killed daemon had claimed ahead of use may be leaked; nothing may be corrupt.
      #expect(try [0, 3].contains(box.tryRun("qemu-img check -q sn3.qcow2").status))
    }

    @Test("a full stream of an overlay with two internal snapshots leaves no leak")
    func streamWithSnapshotsClean() throws {
      let box = try Sandbox()
      try box.run(
        """
        qemu-img create -q -f qcow2 base.qcow2 64M
        qemu-io -f qcow2 -c 'write -q -P 1 0 24M' base.qcow2
        qemu-img create -q -f qcow2 -b base.qcow2 -F qcow2 top.qcow2
        qemu-img snapshot -c first top.qcow2
        qemu-io -f qcow2 -c 'write -q -P 3 16M 2M' top.qcow2
        qemu-img snapshot -c second top.qcow2
        for name in first second; do qemu-img convert -l $name -O raw top.qcow2 $name.raw; done
        chainfs mount vda=top.qcow2 mnt
        chainfs stream mnt/vda
        for n in $(seq 40); do
          head -c 70000 /dev/urandom | dd of=mnt/vda bs=70000 seek=$n conv=notrunc status=none
        done
        cat mnt/.jobs/vda/wait
        """)
      #expect(try box.status()["state"] == "completed")
      try box.run("cp mnt/vda active.raw; chainfs unmount mnt; qemu-img check -q top.qcow2")
      try box.run(
        """
        qemu-img compare -q top.qcow2 active.raw
        for name in first second; do
          qemu-img convert -l $name -O raw top.qcow2 now; cmp now $name.raw
        done
        """)
      #expect(try box.run("qemu-img info top.qcow2 | grep -c '^backing' || true") == "0")
      let list = try box.run("chainfs info top.qcow2")
      #expect(list.contains(#/\n1 +first +0 B +20/#) && list.contains(#/\n2 +second +0 B +20/#))
      let json = { (tool: String) in
        try box.run("\(tool) --output=json top.qcow2 | tr -d ' \\n' | grep -o '\"name\":[^}]*'")
      }
      #expect(
        try box.run("chainfs info --json top.qcow2 | tr -d ' \\n' | grep -o '\"name\":[^}]*'")
          == json("qemu-img info"))
    }

    @Test(
      "where files can share blocks, a stream takes no room and changes no byte",
      arguments: ["xfs", "btrfs"])
    func sharesBlocks(fileSystem: String) throws {
      guard ToolAvailability.has("mkfs.\(fileSystem)") else { return }
      let box = try Sandbox()
      // Some clusters are compressed, and so have to be read and written.
      try box.run(
        """
        truncate -s 1G disk; mkfs.\(fileSystem) -q disk; mkdir images; mount -o loop disk images
        head -c 128M /dev/urandom > flat.raw
        cd images
        qemu-img convert -O qcow2 ../flat.raw base.qcow2
        qemu-img create -q -f qcow2 -b base.qcow2 -F qcow2 mid.qcow2
        qemu-io -f qcow2 -c 'write -q -c -P 7 8M 1M' mid.qcow2
        qemu-img create -q -f qcow2 -b mid.qcow2 -F qcow2 top.qcow2
        qemu-io -f qcow2 -c 'write -q -P 8 100M 64k' top.qcow2
        qemu-img convert -O raw top.qcow2 ../flat.raw
        sync; df -B1M --output=used . | tail -1 > ../before
        """)
      try box.run(
        """
        chainfs mount vda=images/top.qcow2 mnt
        cmp mnt/vda flat.raw
        chainfs stream --wait mnt/vda
        cmp mnt/vda flat.raw
        chainfs unmount mnt
        qemu-img check -q images/top.qcow2
        qemu-img compare -q images/top.qcow2 flat.raw
        ! qemu-img info images/top.qcow2 | grep -q 'backing file'
        sync; df -B1M --output=used images | tail -1 > after
        """)
      let taken = try box.run("echo $(($(cat after) - $(cat before)))")
      #expect(try #require(Int(taken)) < 16, "MiB that the stream took")
    }

    @Test("what a cancelled job copied is skipped by the next one")
    func cancelAndStreamAgain() throws {
      let box = try Sandbox()
      try GuestChain.make(in: box)
      try box.run("chainfs mount vda=sn3.qcow2 mnt; chainfs stream --speed 8M mnt/vda")
      try box.run(
        "until [ $(sed -n 's/^copied: //p' mnt/.jobs/vda/status) -gt 2097152 ]; do :; done")
      try box.run("echo > mnt/.jobs/vda/cancel; cat mnt/.jobs/vda/wait")
      let cancelled = try box.status()
      #expect(cancelled["state"] == "cancelled")
      let copied = try #require(cancelled["copied"].flatMap { Int($0) })
      #expect(try box.run("cat mnt/.jobs/status") == "No active jobs")
      try box.run("cmp mnt/vda expected.raw; chainfs stream --wait mnt/vda")
      let again = try box.status()
      #expect(again["state"] == "completed")
      let skipped = try #require(again["skipped"].flatMap { Int($0) })
      #expect(skipped >= copied)
      try box.run("cmp mnt/vda expected.raw; chainfs unmount mnt; qemu-img check -q sn3.qcow2")
    }

    @Test("a job that was killed goes on by itself at the next mount")
    func resumesAfterKill() throws {
      let box = try Sandbox()
      try GuestChain.make(in: box)
      try box.run("chainfs mount vda=sn3.qcow2 mnt; chainfs stream --speed 2M mnt/vda")
      try box.run(
        "until [ $(sed -n 's/^copied: //p' mnt/.jobs/vda/status) -gt 1048576 ]; do :; done")
      try box.run("kill -9 $(chainfs status --pid mnt); umount -l mnt")
      try box.run("until chainfs mount vda=sn3.qcow2 mnt 2>err; do grep -q lock err; done")
      let resumed = try box.status()
      #expect(resumed["resumed"] == "yes")
      #expect(resumed["state"] == "running")
      #expect(try box.run("cat mnt/.jobs/vda/speed") == "2097152")
      try box.run("chainfs speed mnt/vda 0; cat mnt/.jobs/vda/wait; cmp mnt/vda expected.raw")
      try box.run("chainfs unmount mnt")
      // What the killed daemon had claimed ahead of use may be leaked; nothing may be corrupt.
      #expect(try [0, 3].contains(box.tryRun("qemu-img check -q sn3.qcow2").status))
      #expect(try box.run("ls -A | grep -c chainfs-job || true") == "0")
    }
  }
}
