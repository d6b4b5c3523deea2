import TestSupport
import Testing

extension MountTests {
  @Suite("Commands", .serialized, .timeLimit(.minutes(3)))
  struct CommandTests {
    @Test("the demo walks to its end in under 30 seconds")
    func demo() throws {
      let box = try Sandbox()
      let outcome = try box.tryRun("TMPDIR=$PWD chainfs demo", seconds: 30)
      #expect(outcome.status == 0, "\(outcome.output)\(outcome.errorOutput)")
      #expect(outcome.output.hasSuffix("# done: every byte was as it had to be\n"))
      #expect(try box.run("ls") == "mnt")
    }

    @Test(
      "created images have what was asked for, and are clean",
      arguments: ["", "--cluster-size 4096", "--cluster-size 2M --refcount-bits 1", "--version 2"])
    func create(options: String) throws {
      let box = try Sandbox()
      try box.run("chainfs create \(options) a.qcow2 100M; qemu-img check -q a.qcow2")
      #expect(try box.run("qemu-img info a.qcow2 | grep -c '100 MiB (104857600 bytes)'") == "1")
      try box.run("qemu-io -f qcow2 -c 'write -q -P 5 0 1M' -c 'read -q -P 0 1M 99M' a.qcow2")
      try box.run("chainfs create \(options) --backing a.qcow2 b.qcow2; qemu-img check -q b.qcow2")
      try box.run("qemu-io -f qcow2 -c 'read -q -P 5 0 1M' b.qcow2; chainfs check b.qcow2")
      let named = try box.run("qemu-img info b.qcow2 | grep -E '^backing file' | sed 's/ (.*//'")
      #expect(named == "backing file: a.qcow2\nbacking file format: qcow2")
      #expect(try box.tryRun("chainfs create a.qcow2 1M").status == 1)
      #expect(try box.tryRun("chainfs create c.qcow2").status == 64)
    }

    @Test("no image gets the number of a standard stream that the caller closed")
    func closedStreams() throws {
      let box = try Sandbox()
      try box.run("chainfs create a.qcow2 1M >&-; qemu-img check -q a.qcow2")
      let streams = "readlink /proc/$(chainfs status --pid mnt)/fd/{0,1,2}"
      try box.run("timeout 60 chainfs mount vda=a.qcow2 mnt <&- >&- 2>&-")
      #expect(try box.run(streams) == "/dev/null\n/dev/null\n/dev/null")
      try box.run(
        """
        chainfs unmount mnt
        chainfs mount -f vda=a.qcow2 mnt <&- >&- 2>&- & daemon=$!
        until [ -e mnt/vda ]; do kill -0 $daemon; sleep 0.05; done
        """)
      #expect(try box.run(streams) == "/dev/null\n/dev/null\n/dev/null")
      try box.run("chainfs unmount mnt; qemu-img check -q a.qcow2")
    }

    @Test("a limit of file sizes is an error of the write that meets it, and nobody's end")
    func fileSizeLimit() throws {
      let box = try Sandbox()
      // In units of 1 KiB: the table of a new image is farther out than the first limit.
      let create = try box.tryRun("ulimit -f 64; chainfs create a.qcow2 8M; s=$?; ls; exit $s")
      #expect(create.status == 1 && create.output == "mnt\n", "\(create)")
      #expect(create.errorOutput.contains("File too large"), "\(create)")
      try box.run("chainfs create a.qcow2 8M; (ulimit -f 2048; chainfs mount vda=a.qcow2 mnt)")
      let write = try box.tryRun("dd if=/dev/urandom of=mnt/vda bs=64k conv=notrunc,fsync")
      #expect(write.status == 1 && write.errorOutput.contains("Input/output error"), "\(write)")
      try box.run(
        """
        head -c 65536 /dev/zero | tr '\\0' '\\7' > sevens
        dd if=sevens of=mnt/vda bs=64k conv=notrunc,fsync 2> /dev/null
        chainfs unmount mnt; qemu-img check -q a.qcow2
        qemu-io -f qcow2 -c 'read -q -P 7 0 64k' a.qcow2
        """)
    }

    @Test("an unmount whose daemon goes on for another mount namespace says so, and waits for it")
    func copiedMount() throws {
      let box = try Sandbox()
      try box.run(
        """
        qemu-img create -q -f qcow2 a.qcow2 1M; chainfs mount vda=a.qcow2 mnt
        server=$(chainfs status --pid mnt); mkfifo end
        unshare -m sh -c 'echo > copied; read word < end' & copy=$!
        until [ -e copied ]; do kill -0 $copy; sleep 0.05; done
        chainfs unmount mnt 2> said & client=$!
        until grep -q "pid $server.*namespace" said; do kill -0 $client; sleep 0.05; done
        ! mountpoint -q mnt
        echo > end; wait $copy; wait $client
        qemu-io -f qcow2 -c 'write -q 0 512' a.qcow2
        """)
    }

    @Test("check tells what qemu-img check tells, and repairs leaks")
    func check() throws {
      let box = try Sandbox()
      try box.run(
        """
        qemu-img create -q -f qcow2 a.qcow2 16M; qemu-io -f qcow2 -c 'write -q 0 1M' a.qcow2
        chainfs check a.qcow2
        # An L2 entry that is forgotten leaves its cluster leaked.
        printf '\\0\\0\\0\\0\\0\\0\\0\\0' | dd of=a.qcow2 bs=1 seek=262144 conv=notrunc 2>/dev/null
        """)
      #expect(try box.tryRun("qemu-img check a.qcow2").status == 3)
      #expect(try box.tryRun("chainfs check a.qcow2").status == 1)
      let json = try box.tryRun("chainfs check --json a.qcow2")
      #expect(json.output.contains("\"leaks\": 1"), "\(json.output)")
      try box.run("chainfs check --repair leaks a.qcow2; qemu-img check -q a.qcow2")
    }

    @Test("info and map agree with qemu-img")
    func infoAndMap() throws {
      let box = try Sandbox()
      try box.run(
        """
        qemu-img create -q -f qcow2 a.qcow2 16M; qemu-io -f qcow2 -c 'write -q 0 1M' a.qcow2
        qemu-img create -q -f qcow2 -b a.qcow2 -F qcow2 b.qcow2
        qemu-io -f qcow2 -c 'write -q 512k 1M' -c 'write -q -z 4M 1M' b.qcow2
        """)
      let keys = [
        "virtual-size", "format", "cluster-size", "backing-filename", "backing-filename-format",
      ]
      for key in keys {
        let pick = "grep -o '\"\(key)\": [^,}]*' | head -1"
        #expect(
          try box.run("chainfs info --json b.qcow2 | \(pick)")
            == box.run("qemu-img info --output=json b.qcow2 | \(pick)"))
      }
      #expect(try box.run("chainfs info b.qcow2").contains("(16777216 bytes)"))
      let fields =
        "tr -d '\\n [],' | tr '}' '\\n' | sed 's/\"//g' | grep -o 'start:.*' "
        + "| sed 's/{//; s/present:[a-z]*//'"
      let ours = try box.run("chainfs map --json b.qcow2 | \(fields)")
      let theirs = try box.run("qemu-img map --output=json b.qcow2 | \(fields)")
      #expect(ours == theirs)
    }

    @Test("a path that is no mount is told apart from a device that is not there")
    func targets() throws {
      let box = try Sandbox()
      try box.run("chainfs create a.qcow2 1M; chainfs create b.qcow2 1M")
      #expect(try box.tryRun("chainfs status mnt").errorOutput.contains("mounted chainfs"))
      try box.run("chainfs mount vda=a.qcow2 vdb=b.qcow2 mnt")
      #expect(try box.run("chainfs status mnt") == "No active jobs")
      #expect(try box.tryRun("chainfs status mnt/vdc").errorOutput.contains("have vda, vdb"))
      let ambiguous = try box.tryRun("chainfs stream mnt")
      #expect(ambiguous.status == 1 && ambiguous.errorOutput.contains("vda, vdb"))
      let refused = try box.tryRun("chainfs cancel mnt/vdb")
      #expect(refused.status == 1)
      #expect(try "chainfs: " + box.run("cat mnt/.jobs/vdb/error") + "\n" == refused.errorOutput)
      try box.run("chainfs unmount mnt")
    }

    @Test("-f stays in the foreground and logs to standard error")
    func foreground() throws {
      let box = try Sandbox()
      try box.run(
        """
        chainfs create a.qcow2 1M
        chainfs mount -f vda=a.qcow2 mnt 2> log & daemon=$!
        until [ -e mnt/vda ]; do kill -0 $daemon; done
        chainfs unmount mnt; wait $daemon
        """)
    }

    @Test("a job is started with a name, finalized and dismissed by commands")
    func finalizeAndDismiss() throws {
      let box = try mounted()
      try box.run(
        """
        chainfs stream --id mine --auto-finalize no --auto-dismiss no mnt/vda
        until grep -q '^state: pending' mnt/.jobs/vda/status; do sleep 0.01; done
        grep -q '"device": "mine"' mnt/.jobs/status.json
        """)
      try expectRefusal(box, "chainfs dismiss --id mine mnt/vda", "the job is pending")
      try expectRefusal(box, "chainfs dismiss --id other mnt/vda", "no such concluded job")
      try box.run(
        """
        chainfs finalize mnt/vda
        grep -q '"device": "mine"' mnt/.jobs/status.json; grep -q concluded mnt/.jobs/status.json
        [ $(wc -l < mnt/.jobs/vda/chain) = 1 ]
        """)
      try expectRefusal(box, "chainfs finalize mnt/vda", "no job")
      try box.run("chainfs dismiss --id mine mnt/vda; [ \"$(cat mnt/.jobs/status.json)\" = '[]' ]")
      try expectRefusal(box, "chainfs stream --auto-finalize maybe mnt/vda", "yes or no, not maybe")
      try box.run(
        """
        chainfs stream --auto-dismiss no mnt/vdb; cat mnt/.jobs/vdb/wait
        grep -q concluded mnt/.jobs/status.json
        chainfs dismiss mnt/vdb; [ "$(cat mnt/.jobs/status.json)" = '[]' ]; chainfs unmount mnt
        """)
    }

    @Test("stop holds the reads of a device until cont")
    func stopAndCont() throws {
      let box = try mounted("-o cache=none ")
      try box.run(
        """
        chainfs stop mnt/vda
        { head -c 512 mnt/vda > read; date +%s%N > ended; } & reader=$!
        # The other device is not held. What is not held has ended by then, or is only not seen to.
        head -c 512 mnt/vdb > other; sleep 0.3
        date +%s%N > allowed; chainfs cont mnt/vda
        wait $reader; [ -s read ]
        [ $(cat ended) -gt $(cat allowed) ]
        chainfs unmount mnt
        """)
    }

    @Test("the limit of all streams and that of one are shown and set, each by its place")
    func speed() throws {
      let box = try mounted()
      #expect(try box.run("chainfs speed mnt; chainfs speed mnt/vda") == "0\n0")
      try box.run("chainfs speed mnt 1; chainfs stream mnt/vda; chainfs speed mnt/vda 50M")
      #expect(
        try box.run("chainfs speed mnt; cat mnt/.jobs/speed; chainfs speed mnt/vda")
          == "1\n1\n52428800")
      try expectRefusal(box, "chainfs speed mnt fast", "not fast")
      try expectRefusal(box, "chainfs speed mnt/vdb 5M", "no job")
      #expect(try box.run("chainfs speed mnt; chainfs speed mnt/vda") == "1\n52428800")
      try box.run("chainfs speed mnt 0; cat mnt/.jobs/vda/wait; chainfs unmount mnt")
    }

    @Test("a snapshot of several devices is taken of all, or of none")
    func snapshots() throws {
      let box = try mounted()
      try box.run(
        """
        chainfs snapshot mnt vda=a.qcow2 "vdb=$PWD/b b.qcow2"
        [ "$(head -n 1 mnt/.jobs/vda/chain | cut -f 5)" = "$PWD/a.qcow2" ]
        [ "$(head -n 1 mnt/.jobs/vdb/chain | cut -f 5)" = "$PWD/b b.qcow2" ]
        # One of several, and a path with an equals sign.
        chainfs snapshot mnt vdb=c.qcow2; chainfs snapshot mnt/vda vdb=x.qcow2
        [ $(wc -l < mnt/.jobs/vda/chain) = 4 ]; [ $(wc -l < mnt/.jobs/vdb/chain) = 4 ]
        [ "$(head -n 1 mnt/.jobs/vda/chain | cut -f 5)" = "$PWD/vdb=x.qcow2" ]
        """)
      for (words, sentence) in [
        ("mnt vda=d.qcow2 vdb=a.qcow2", "there is a file already"),
        ("mnt vda=d.qcow2 vdz=e.qcow2", "no device named vdz (have vda, vdb)"),
        ("mnt vda=d.qcow2 vdb=d.qcow2", "the same file"),
        ("mnt vda=d.qcow2 vda=e.qcow2", "twice"),
        ("mnt vda=d.qcow2 e.qcow2", "DEVICE=PATH"), ("mnt d.qcow2", "several devices"),
        ("mnt/vda d.qcow2 e.qcow2", "DEVICE=PATH"),
        ("--mode existing mnt vda=d.qcow2 vdb=e.qcow2", "d.qcow2"),
        ("--format vmdk mnt vda=d.qcow2 vdb=e.qcow2", "vmdk"),
      ] {
        try expectRefusal(box, "chainfs snapshot \(words)", sentence)
        try box.run("[ ! -e d.qcow2 ]; [ ! -e e.qcow2 ]; [ $(wc -l < mnt/.jobs/vda/chain) = 4 ]")
      }
      #expect(try box.tryRun("chainfs snapshot mnt").status == 64)
      try box.run(
        """
        chainfs unmount mnt; qemu-img check -q vdb=x.qcow2; qemu-img check -q c.qcow2
        """)
    }

    @Test("every command has a help, which is no error")
    func help() throws {
      let box = try Sandbox()
      let commands = try box.run(
        "chainfs --help | sed -n '/^SUBCOMMANDS/,/^$/s/^  \\([a-z]*\\) .*/\\1/p'"
      ).split(separator: "\n")
      #expect(commands.count > 15)
      for command in commands {
        let help = try box.tryRun("chainfs \(command) --help")
        #expect(help.status == 0 && help.errorOutput == "", "\(command): \(help.errorOutput)")
        #expect(help.output.contains("USAGE: chainfs \(command)"), "\(command)")
      }
    }

    /// Two overlays, each over half a disk of data.
    private func mounted(_ options: String = "") throws -> Sandbox {
      let box = try Sandbox()
      try box.run(
        """
        for name in vda vdb; do
          qemu-img create -q -f qcow2 $name-0 16M; qemu-io -f qcow2 -c 'write -q -P 1 0 8M' $name-0
          qemu-img create -q -f qcow2 -b $name-0 -F qcow2 $name-1
        done
        chainfs mount \(options)vda=vda-1 vdb=vdb-1 mnt
        """)
      return box
    }

    /// Fails unless the command fails with status 1 and this in its sentence.
    private func expectRefusal(_ box: Sandbox, _ command: String, _ words: String) throws {
      let refusal = try box.tryRun(command)
      #expect(refusal.status == 1, "\(command): \(refusal.errorOutput)")
      #expect(
        refusal.errorOutput.hasPrefix("chainfs: ") && refusal.errorOutput.contains(words),
        "\(command): \(refusal.errorOutput)")
    }
  }
}
