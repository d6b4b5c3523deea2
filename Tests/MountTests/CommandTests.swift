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
  }
}
