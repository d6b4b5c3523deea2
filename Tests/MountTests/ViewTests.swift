import TestSupport
import Testing

extension MountTests {
  /// `.chain/vda`: flat views of every layer and of every internal snapshot.
  @Suite("Views of the layers", .serialized, .timeLimit(.minutes(5)))
  struct ViewTests {
    /// A chain with a raw base, a snapshot in the second layer and two in the active one, four disk
    /// sizes and three cluster sizes; `expected/NAME` is what QEMU reads for each view.
    private static let make = """
      qemu-img create -q -f raw base.raw 40M
      qemu-io -f raw -c 'write -q -P 1 0 9M' -c 'write -q -P 2 36M 4M' base.raw
      qemu-img create -q -f qcow2 -o cluster_size=4k -b base.raw -F raw sn1.qcow2 24M
      qemu-io -f qcow2 -c 'write -q -P 3 1M 3M' -c 'write -q -c -P 4 10M 64k' sn1.qcow2
      qemu-img snapshot -c 'before/upgrade' sn1.qcow2
      qemu-io -f qcow2 -c 'write -q -P 5 2M 9M' -c 'discard -q 20M 1M' sn1.qcow2
      qemu-img create -q -f qcow2 -o cluster_size=64k,extended_l2=on -b sn1.qcow2 -F qcow2 \
        sn2.qcow2 64M
      qemu-io -f qcow2 -c 'write -q -P 6 3M 5k' -c 'write -q -z 4M 1M' -c 'write -q -P 7 50M 9M' \
        sn2.qcow2
      qemu-img create -q -f qcow2 -b sn2.qcow2 -F qcow2 sn3.qcow2 56M
      qemu-img snapshot -c first sn3.qcow2
      qemu-io -f qcow2 -c 'write -q -P 8 100k 300k' -c 'write -q -P 9 30M 2M' sn3.qcow2
      qemu-img snapshot -c first sn3.qcow2
      qemu-io -f qcow2 -c 'write -q -P 10 200k 300k' sn3.qcow2
      mkdir expected
      convert() { qemu-img convert -O raw "$@"; }
      convert sn3.qcow2 expected/0-sn3.qcow2
      convert -l snapshot.id=1 sn3.qcow2 expected/0-sn3.qcow2@first
      convert -l snapshot.id=2 sn3.qcow2 expected/0-sn3.qcow2@first~2
      convert sn2.qcow2 expected/1-sn2.qcow2
      convert sn1.qcow2 expected/2-sn1.qcow2
      convert -l snapshot.name=before/upgrade sn1.qcow2 expected/2-sn1.qcow2@before%2Fupgrade
      convert -f raw base.raw expected/3-base.raw

      """

    private static let names = """
      0-sn3.qcow2
      0-sn3.qcow2@first
      0-sn3.qcow2@first~2
      1-sn2.qcow2
      2-sn1.qcow2
      2-sn1.qcow2@before%2Fupgrade
      3-base.raw
      """

    @Test(
      "each view is listed and has the bytes that QEMU reads of its layer",
      arguments: ["readback", "none", "writeback"])
    func bytes(cache: String) throws {
      let box = try Sandbox()
      try box.run(Self.make + "chainfs mount -o cache=\(cache) vda=sn3.qcow2 mnt")
      #expect(try box.run("ls -A mnt") == ".chain\n.jobs\nvda")
      #expect(try box.run("ls mnt/.chain; ls mnt/.chain/vda") == "vda\n" + Self.names)
      #expect(
        try box.run("stat -c '%F %a %u' mnt/.chain/vda/* | sort -u") == "regular file 400 0")
      try box.run(
        """
        ls -U mnt/.chain/vda | sort -c
        for name in $(ls expected); do
          cmp mnt/.chain/vda/$name expected/$name
          [ $(stat -c %s mnt/.chain/vda/$name) = $(stat -c %s expected/$name) ]
          dd if=mnt/.chain/vda/$name of=direct bs=1M iflag=direct status=none
          cmp direct expected/$name
          # Holes are found by SEEK_DATA.
          cp --sparse=auto mnt/.chain/vda/$name copy
          cmp copy expected/$name
          qemu-img map -f raw mnt/.chain/vda/$name > map
          tail -c 12345 mnt/.chain/vda/$name | cmp - <(tail -c 12345 expected/$name)
        done
        for name in 4-x 1-sn1.qcow2 01-sn2.qcow2 1-sn2.qcow2@; do
          [ ! -e mnt/.chain/vda/$name ]
        done
        chainfs unmount mnt
        """)
    }

    @Test("nothing below .chain takes a write, a new mode or a new name")
    func refusals() throws {
      let box = try Sandbox()
      try box.run(Self.make + "chainfs mount vda=sn3.qcow2 mnt")
      for name in Self.names.split(separator: "\n") {
        for command in [
          "echo x >", "echo x >>", ": <>", "chmod 600", "truncate -s 0", "truncate -s 1T", "touch",
          "fallocate -l 1M", "dd if=/dev/zero count=1 status=none conv=notrunc of=",
        ] {
          let script = command.hasSuffix("=") ? command : command + " "
          let outcome = try box.tryRun("\(script)mnt/.chain/vda/\(name)")
          #expect(outcome.status != 0, "\(command) \(name)")
          #expect(outcome.errorOutput.contains("Read-only file system"), "\(outcome.errorOutput)")
        }
        for command in ["rm -f", "mv -f base.raw", "ln -s x"] {
          #expect(try box.tryRun("\(command) mnt/.chain/vda/\(name)").status != 0, "\(command)")
        }
      }
      for command in ["touch", "mkdir"] {
        #expect(try box.tryRun("\(command) mnt/.chain/vda/new").status != 0, "\(command)")
      }
      try box.run("for name in $(ls expected); do cmp mnt/.chain/vda/$name expected/$name; done")
      try box.run("chainfs unmount mnt")
    }

    @Test(
      "views stay as they are while the device is written to and streamed, and then go",
      arguments: ["", "base.raw"])
    func acrossStream(base: String) throws {
      let box = try Sandbox()
      // The readers begin before the job and go on until it has ended; each compares at least once.
      try box.run(
        Self.make + """
          chainfs mount vda=sn3.qcow2 mnt
          exec 7< mnt/.chain/vda/1-sn2.qcow2 8< mnt/.chain/vda/2-sn1.qcow2 \
            9< mnt/.chain/vda/2-sn1.qcow2@before%2Fupgrade 10< mnt/.chain/vda/0-sn3.qcow2@first
          echo 'base=\(base) speed=20M' | sed 's/base= //' > mnt/.jobs/vda/stream
          (while ! [ -e ended ]; do
            head -c 300000 /dev/urandom |
              dd of=mnt/vda bs=300000 seek=$((RANDOM % 190)) conv=notrunc,fsync status=none
          done) & writer=$!
          (rounds=0
          while ! [ -e ended ]; do
            for name in $(ls expected | grep -v '^0-sn3.qcow2$'); do
              cp mnt/.chain/vda/$name copy 2>/dev/null || continue
              cmp copy expected/$name || touch differs
              rounds=$((rounds + 1))
            done
          done; echo $rounds > rounds) & reader=$!
          cat mnt/.jobs/vda/wait; touch ended; wait $writer $reader
          [ ! -e differs ]
          [ $(cat rounds) -gt 6 ]
          grep -q '^state: completed' mnt/.jobs/vda/status
          ls mnt/.chain/vda > after
          cmp <(cat <&7) expected/1-sn2.qcow2
          cmp <(cat <&8) expected/2-sn1.qcow2
          cmp <(cat <&9) expected/2-sn1.qcow2@before%2Fupgrade
          cmp <(cat <&10) expected/0-sn3.qcow2@first
          # Past the page cache, of what left the chain and what took its clusters.
          for fd in 7 9 10; do cat < /proc/self/fd/$fd > again; done
          dd if=/proc/self/fd/10 iflag=direct bs=1M status=none | cmp - expected/0-sn3.qcow2@first
          [ $(stat -L -c %s /proc/self/fd/7) = $(stat -c %s expected/1-sn2.qcow2) ]
          # Locked for the sake of the views, and no longer.
          if qemu-io -f qcow2 -c 'write -q 0 4k' sn1.qcow2 2> /dev/null; then exit 1; fi
          exec 8<&-
          if qemu-io -f qcow2 -c 'write -q 0 4k' sn1.qcow2 2> /dev/null; then exit 1; fi
          exec 7<&- 9<&- 10<&-
          until qemu-io -f qcow2 -c 'write -q 0 4k' sn1.qcow2 2> /dev/null; do sleep 0.05; done
          for name in $(grep -v '^0-sn3.qcow2$' after | grep @); do
            cmp mnt/.chain/vda/$name expected/$name
          done
          cmp mnt/.chain/vda/0-sn3.qcow2 mnt/vda
          chainfs unmount mnt; qemu-img check -q sn3.qcow2
          """, seconds: 200)
      var names = ["0-sn3.qcow2", "0-sn3.qcow2@first", "0-sn3.qcow2@first~2"]
      if !base.isEmpty { names.append("1-\(base)") }
      #expect(try box.run("cat after") == names.joined(separator: "\n"))
    }

    @Test("a live snapshot moves the names, and the view of the active image follows the disk")
    func acrossSnapshot() throws {
      let box = try Sandbox()
      try box.run(
        Self.make + """
          chainfs mount vda=sn3.qcow2 mnt
          exec 7< mnt/.chain/vda/0-sn3.qcow2 8< mnt/.chain/vda/1-sn2.qcow2
          cmp <(head -c 1M <&7) <(head -c 1M expected/0-sn3.qcow2)
          echo $PWD/sn4.qcow2 > mnt/.jobs/vda/snapshot
          echo changed | dd of=mnt/vda bs=1M seek=5 conv=notrunc status=none
          [ "$(dd if=/proc/self/fd/7 bs=1M skip=5 count=1 status=none | head -c 7)" = changed ]
          cmp <(cat <&8) expected/1-sn2.qcow2
          [ "$(ls mnt/.chain/vda | tr '\\n' ' ')" = "0-sn4.qcow2 1-sn3.qcow2 1-sn3.qcow2@first \
          1-sn3.qcow2@first~2 2-sn2.qcow2 3-sn1.qcow2 3-sn1.qcow2@before%2Fupgrade 4-base.raw " ]
          cmp mnt/.chain/vda/1-sn3.qcow2 expected/0-sn3.qcow2
          cmp mnt/.chain/vda/1-sn3.qcow2@first~2 expected/0-sn3.qcow2@first~2
          [ ! -e mnt/.chain/vda/0-sn3.qcow2 ]
          cmp mnt/.chain/vda/0-sn4.qcow2 mnt/vda
          exec 7<&- 8<&-
          chainfs unmount mnt
          """)
    }

    @Test(
      "an encrypted layer, one with a data file, and one named by a window are read as they are")
    func kinds() throws {
      let box = try Sandbox()
      try box.run(
        EncryptionTests.prologue + """
          OPTIONS=
          head -c 3M /dev/urandom > window.raw
          luks -u -F raw \
            -b 'json:{"driver":"raw","offset":1048576,"size":1048576,"file.filename":"window.raw"}' \
            a.qcow2 4M
          io a.qcow2 -c 'write -q -P 1 100k 300k'
          qemu-img create -q -u -f qcow2 -o data_file=b.data -b a.qcow2 -F qcow2 b.qcow2 4M
          qemu-img create -q -u -f qcow2 -b b.qcow2 -F qcow2 c.qcow2 4M
          chainfs mount -o secret=secret,backing-root=$PWD,nolock vda=b.qcow2 mnt
          head -c 70000 /dev/urandom | dd of=mnt/vda bs=70000 seek=40 conv=notrunc status=none
          cp mnt/vda b.expected; chainfs unmount mnt
          dd if=window.raw of=w.expected bs=1M skip=1 count=1 status=none
          cp w.expected a.expected; truncate -s 4M a.expected
          head -c 300k /dev/zero | tr '\\0' '\\1' |
            dd of=a.expected bs=100k seek=1 conv=notrunc status=none
          compare a.qcow2 a.expected
          chainfs mount -o secret=secret,backing-root=$PWD,nolock vda=c.qcow2 mnt
          rm window.raw
          cmp mnt/.chain/vda/1-b.qcow2 b.expected
          cmp mnt/.chain/vda/2-a.qcow2 a.expected
          cmp mnt/.chain/vda/3-window.raw w.expected
          chainfs unmount mnt
          """)
    }

    @Test("every view of a deep chain is open at once, and takes no descriptor of the daemon")
    func manyOpen() throws {
      let box = try Sandbox()
      try box.run(
        """
        qemu-img create -q -f qcow2 l0.qcow2 8M
        for i in $(seq 300); do
          qemu-img create -q -u -f qcow2 -b l$((i - 1)).qcow2 -F qcow2 l$i.qcow2 8M
          [ $((i % 50)) != 0 ] || qemu-io -f qcow2 -c "write -q -P $((i / 50)) ${i}k 9k" l$i.qcow2
        done
        chainfs mount vda=l300.qcow2 mnt
        pid=$(chainfs status --pid mnt)
        ls mnt/.chain/vda | wc -l | grep -qx 301
        ls -l mnt/.chain/vda > list
        before=$(ls /proc/$pid/fd | wc -l)
        ulimit -n 1024
        for i in $(seq 0 300); do exec {fd}< mnt/.chain/vda/$i-l$((300 - i)).qcow2; fds="$fds $fd"; done
        for fd in $fds; do cat <&$fd > x; done
        [ $(ls /proc/$pid/fd | wc -l) -le $((before + 2)) ]
        cmp x <(head -c 8M /dev/zero)
        dd if=mnt/.chain/vda/150-l150.qcow2 bs=1k skip=150 count=9 status=none |
          cmp - <(head -c 9k /dev/zero | tr '\\0' '\\3')
        for fd in $fds; do exec {fd}<&-; done
        chainfs unmount mnt
        """, seconds: 120)
    }
  }
}
