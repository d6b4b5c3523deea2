import TestSupport
import Testing

extension MountTests {
  @Suite("Control files", .serialized, .timeLimit(.minutes(4)))
  struct RefusalTests {
    /// One command that must be refused: what is echoed where, and the errno's text.
    struct Refusal: CustomTestStringConvertible {
      var file: String
      var text: String
      var errno: String
      var words: String

      init(_ file: String, _ text: String, _ errno: String, _ words: String) {
        self.file = file
        self.text = text
        self.errno = errno
        self.words = words
      }

      var testDescription: String { "echo '\(text)' > \(file)" }
    }

    static let invalid = "Invalid argument"
    static let idle: [Refusal] = [
      Refusal("stream", "bogus=1", invalid, "bogus"),
      Refusal("stream", "speed=1.5M", invalid, "1.5M"),
      Refusal("stream", "speed=0x10", invalid, "0x10"),
      Refusal("stream", "speed=-1", invalid, "-1"),
      Refusal("stream", "speed=9223372036854775808", invalid, "9223372036854775808"),
      Refusal("stream", "speed=8796093022208M", invalid, "8796093022208M"),
      Refusal("stream", "on-error=never", invalid, "never"),
      Refusal("stream", "base=nosuch.qcow2", "No such file or directory", "nosuch.qcow2"),
      Refusal("stream", "base=top.qcow2", "No such file or directory", "top.qcow2"),
      Refusal("stream", "one two", invalid, ""),
      Refusal("cancel", "", "No such file or directory", "job"),
      Refusal("speed", "1M", "No such file or directory", "job"),
      Refusal("pause", "", "No such file or directory", "job"),
      Refusal("resume", "1", "No such file or directory", "job"),
      Refusal("cancel", "bogus", invalid, "bogus"),
      Refusal("snapshot", "", invalid, ""),
      Refusal("snapshot", "/nowhere/at/all.qcow2", "No such file or directory", "/nowhere"),
      Refusal("snapshot", "$PWD/base.qcow2", "File exists", "base.qcow2"),
      Refusal("snapshot", "$PWD/new.qcow2 format=vmdk", "", "vmdk"),
      Refusal("snapshot", "$PWD/new.qcow2 mode=other", invalid, "other"),
    ]

    private func mounted(_ options: String = "") throws -> Sandbox {
      let box = try Sandbox()
      try box.run(
        """
        qemu-img create -q -f qcow2 base.qcow2 64M
        qemu-io -f qcow2 -c 'write -q -P 1 0 32M' base.qcow2
        qemu-img create -q -f qcow2 -b base.qcow2 -F qcow2 mid.qcow2
        qemu-io -f qcow2 -c 'write -q -P 2 16M 4M' mid.qcow2
        qemu-img create -q -f qcow2 -b mid.qcow2 -F qcow2 top.qcow2
        chainfs mount \(options) vda=top.qcow2 mnt
        """)
      return box
    }

    private func expect(_ refusal: Refusal, of box: Sandbox) throws {
      let before = try box.run("ls -A; cut -f 1-3,5 mnt/.jobs/vda/chain")
      let echo = "echo \"\(refusal.text)\" > mnt/.jobs/vda/\(refusal.file)"
      let bash = try box.tryRun(echo)
      #expect(bash.status == 1, "\(refusal)")
      #expect(bash.errorOutput.contains(refusal.errno), "\(refusal): \(bash.errorOutput)")
      let sentence = try box.run("cat mnt/.jobs/vda/error")
      #expect(!sentence.isEmpty && sentence.contains(refusal.words), "\(refusal): \(sentence)")
      #expect(try box.tryRun(echo, shell: "/bin/sh").status == 1, "\(refusal)")
      #expect(try box.run("ls -A; cut -f 1-3,5 mnt/.jobs/vda/chain") == before)
    }

    @Test("each refusal has its errno and sentence, in bash and in sh, and changes nothing")
    func refusedWhenIdle() throws {
      let box = try mounted()
      for refusal in Self.idle { try expect(refusal, of: box) }
      let large = try box.tryRun(
        "head -c 5000 /dev/zero | tr '\\0' 'a' | dd bs=8192 of=mnt/.jobs/vda/stream")
      #expect(large.errorOutput.contains(Self.invalid))
      let nul = try box.tryRun("printf 'a\\0b' > mnt/.jobs/vda/stream")
      #expect(nul.errorOutput.contains(Self.invalid))
      let encoding = try box.tryRun("printf '\\xff\\xfe' > mnt/.jobs/vda/stream")
      #expect(encoding.errorOutput.contains(Self.invalid))
      try box.run("chainfs unmount mnt; qemu-img check -q top.qcow2")
    }

    @Test("a running job refuses another, and a snapshot, without leaving a file")
    func refusedWhenBusy() throws {
      let box = try mounted()
      try box.run("echo 'base=base.qcow2 speed=64k' > mnt/.jobs/vda/stream")
      for refusal in [
        Refusal("stream", "", "resource busy", "job"),
        Refusal("snapshot", "$PWD/new.qcow2", "resource busy", "job"),
        Refusal("speed", "fast", Self.invalid, "fast"),
        Refusal("speed", "-5", Self.invalid, "-5"),
      ] {
        try expect(refusal, of: box)
      }
      try box.run("echo > mnt/.jobs/vda/pause; echo > mnt/.jobs/vda/pause")
      #expect(try box.status()["state"] == "paused")
      try box.run("echo > mnt/.jobs/vda/resume; echo > mnt/.jobs/vda/resume")
      #expect(try box.status()["state"] == "running")
      try box.run("echo 1 > mnt/.jobs/vda/pause; echo 1 > mnt/.jobs/vda/cancel")
      try box.run("cat mnt/.jobs/vda/wait; chainfs unmount mnt")
    }

    @Test("a read-only device refuses streams, snapshots and writes with EROFS, and answers on")
    func refusedReadOnly() throws {
      let box = try mounted("-o ro")
      try expect(Refusal("stream", "", "Read-only file system", "vda"), of: box)
      try expect(Refusal("snapshot", "$PWD/n.qcow2", "Read-only file system", "vda"), of: box)
      #expect(try box.run("stat -c %a mnt/vda") == "400")
      #expect(try box.tryRun("dd if=/dev/zero of=mnt/vda count=1 conv=notrunc").status != 0)
      #expect(try box.run("cat mnt/.jobs/status") == "No active jobs")
      try box.run("chainfs unmount mnt")
    }

    @Test("what only tells something is not opened for writing, by root either")
    func textsAreRead() throws {
      let box = try mounted()
      for file in ["status", "metrics", "events", "vda/chain", "vda/wait"] {
        let write = try box.tryRun("echo > mnt/.jobs/\(file)")
        #expect(write.errorOutput.contains("Permission denied"), "\(file): \(write.errorOutput)")
      }
      // A directory has a link for each one in it, and two of its own.
      #expect(try box.run("stat -c %h mnt mnt/.jobs mnt/.jobs/vda") == "4\n3\n2")
      try box.run("chainfs unmount mnt")
    }

    @Test("status texts are QEMU's, to the byte")
    func statusText() throws {
      let box = try mounted()
      #expect(try box.tryRun("cat mnt/.jobs/status").output == "No active jobs\n")
      #expect(try box.tryRun("cat mnt/.jobs/vda/status").output == "No active jobs\n")
      #expect(try box.tryRun("cat mnt/.jobs/status.json").text == "[]")
      // A piece that was under way when the pause came still counts.
      try box.run(
        """
        echo 'speed=1' > mnt/.jobs/vda/stream; echo > mnt/.jobs/vda/pause
        until grep -q '"busy": *false' mnt/.jobs/status.json; do :; done
        """)
      let line = try box.tryRun("cat mnt/.jobs/status").output
      let pattern =
        #/Streaming device vda: Completed [0-9]+ of 67108864 bytes, speed limit 1 bytes/s\n/#
      #expect(line.wholeMatch(of: pattern) != nil, "\(line)")
      #expect(try box.tryRun("head -1 mnt/.jobs/vda/status").output == line)
      #expect(try box.tryRun("cat mnt/.jobs/vda/speed").output == "1\n")
      try box.run("echo > mnt/.jobs/vda/cancel; cat mnt/.jobs/vda/wait")
      #expect(try box.status()["state"] == "cancelled")
      let block = try box.tryRun("cat mnt/.jobs/block").output
      #expect(block.hasPrefix("vda: \(box.path)/top.qcow2 (qcow2)\n"), "\(block)")
      #expect(
        block.contains("    Backing file:     \(box.path)/mid.qcow2 (chain depth: 2)\n"),
        "\(block)")
      let chain = try box.run("cut -f1,2,3 mnt/.jobs/vda/chain; cut -f5 mnt/.jobs/vda/chain")
      #expect(
        chain == """
          0\tqcow2\t67108864
          1\tqcow2\t67108864
          2\tqcow2\t67108864
          \(box.path)/top.qcow2
          \(box.path)/mid.qcow2
          \(box.path)/base.qcow2
          """)
      try box.run("chainfs unmount mnt")
    }

    @Test("a stream with nothing to do completes with len 0 and leaves the header alone")
    func nothingToStream() throws {
      let box = try mounted()
      try box.run("head -c 65536 top.qcow2 | sha256sum > header")
      try box.run("chainfs stream --wait --base mid.qcow2 mnt/vda")
      #expect(try box.status()["state"] == "completed")
      try box.run("chainfs unmount mnt; head -c 65536 top.qcow2 | sha256sum | cmp - header")
    }
  }
}
