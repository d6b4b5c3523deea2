import TestSupport
import Testing

extension MountTests {
  @Suite("Bad input", .serialized, .timeLimit(.minutes(4)))
  struct BadInputTests {
    /// A mount that must fail: what is prepared, the command, its status, words of the sentence.
    struct Case: CustomTestStringConvertible {
      var testDescription: String
      var prepare = ""
      var command: String
      var status: Int32 = 1
      var words: [String]

      init(
        _ name: String, prepare: String = "", _ command: String, status: Int32 = 1,
        _ words: String...
      ) {
        testDescription = name
        self.prepare = prepare
        self.command = command
        self.status = status
        self.words = words
      }
    }

    /// Overwrites bytes of the header: the offset, and the bytes in printf's octal or hex.
    static func patch(_ offset: Int, _ bytes: String) -> String {
      "printf '\(bytes)' | dd of=a.qcow2 bs=1 seek=\(offset) conv=notrunc 2>/dev/null"
    }

    static let mount = "chainfs mount vda=a.qcow2 mnt"
    static let cases: [Case] = [
      Case(
        "not qcow2", prepare: "truncate -s 1M plain", "chainfs mount vda=plain mnt",
        "plain", "raw:"),
      Case("missing image", "chainfs mount vda=nosuch.qcow2 mnt", "nosuch.qcow2"),
      Case("empty image", prepare: ": > a.qcow2", mount, "a.qcow2"),
      Case("truncated header", prepare: "truncate -s 50 a.qcow2", mount, "a.qcow2"),
      Case("truncated tables", prepare: "truncate -s 65600 a.qcow2", mount, "a.qcow2"),
      Case("version 4", prepare: patch(4, #"\x00\x00\x00\x04"#), mount, "version", "4"),
      Case("cluster bits 8", prepare: patch(20, #"\x00\x00\x00\x08"#), mount, "cluster"),
      Case("cluster bits 22", prepare: patch(20, #"\x00\x00\x00\x16"#), mount, "cluster"),
      Case("encryption method 7", prepare: patch(32, #"\x00\x00\x00\x07"#), mount, "a.qcow2"),
      Case(
        "an L1 table out of the file", prepare: patch(40, #"\x00\x00\x7f\x00"#), mount,
        "a.qcow2"),
      Case(
        "an L1 table not aligned", prepare: patch(40, #"\x00\x00\x00\x00\x00\x03\x00\x01"#),
        mount, "l1_table_offset"),
      Case("an L1 table too short", prepare: patch(36, #"\x00\x00\x00\x00"#), mount, "l1_size"),
      Case("no refcount table", prepare: patch(56, #"\x00\x00\x00\x00"#), mount, "refcount"),
      Case("refcount order 7", prepare: patch(96, #"\x00\x00\x00\x07"#), mount, "refcount"),
      Case("header length 20", prepare: patch(100, #"\x00\x00\x00\x14"#), mount, "header"),
      Case(
        "unknown incompatible feature", prepare: patch(72, #"\x00\x00\x01"#), mount,
        "feature"),
      Case("the corrupt bit", prepare: patch(79, #"\x02"#), mount, "corrupt"),
      Case(
        "encrypted with AES", prepare: patch(32, #"\x00\x00\x00\x01"#), mount, "AES encryption",
        "qemu-img convert"),
      Case(
        "encrypted without a LUKS header", prepare: patch(32, #"\x00\x00\x00\x02"#), mount,
        "encryption header"),
      Case(
        "a missing backing file",
        prepare: "qemu-img create -q -f qcow2 -u -b gone.qcow2 -F qcow2 a.qcow2 8M", mount,
        "gone.qcow2"),
      Case(
        "a backing file that is the image itself",
        prepare: "qemu-img rebase -u -b a.qcow2 -F qcow2 a.qcow2", mount, "loop"),
      Case(
        "a truncated backing file",
        prepare: "qemu-img create -q -f qcow2 -b base.qcow2 -F qcow2 a.qcow2 8M; "
          + "truncate -s 60 base.qcow2", mount, "base.qcow2"),
      Case(
        "a backing file without a format that is not qcow2",
        prepare: "truncate -s 8M r.raw; "
          + "qemu-img create -q -f qcow2 -u -b r.raw -F raw a.qcow2 8M; "
          // The extension that names the format becomes one that nobody knows.
          + patch(112, #"\x12\x34\x56\x78"#),
        mount, "qemu-img rebase", "raw"),
      Case(
        "a backing file that is not qcow2 as its overlay says",
        prepare: "truncate -s 8M r.raw; "
          + "qemu-img create -q -f qcow2 -u -b r.raw -F qcow2 a.qcow2 8M", mount, "r.raw"),
      Case(
        "a backing file over the network",
        prepare: "qemu-img create -q -f qcow2 -u -b nbd://localhost/x -F raw a.qcow2 8M",
        mount, "nbd"),
      Case(
        "a layer outside of backing-root",
        prepare: "qemu-img create -q -f qcow2 -b base.qcow2 -F qcow2 a.qcow2 8M; mkdir root",
        "chainfs mount -o backing-root=root vda=a.qcow2 mnt", "backing-root"),
      Case("a device name with a slash", "chainfs mount v/a=a.qcow2 mnt", "v/a"),
      Case("a device name that begins with a dot", "chainfs mount .jobs=a.qcow2 mnt", ".jobs"),
      Case(
        "a device name of 65 characters",
        "chainfs mount $(printf 'v%.0s' $(seq 65))=a.qcow2 mnt", "name"),
      Case("two devices with one name", "chainfs mount vda=a.qcow2 vda=base.qcow2 mnt", "vda"),
      Case(
        "one image for two devices", "chainfs mount vda=a.qcow2 vdb=a.qcow2 mnt", "a.qcow2",
        "another device or layer of the same mount"),
      Case(
        "a log that cannot be had",
        "chainfs mount -o log=none/log vda=a.qcow2 mnt 2> said; s=$?; cat said >&2; "
          + "[ $(wc -l < said) = 1 ] && rm said && exit $s", "none/log: No such file"),
      Case("a mount point with something in it", prepare: "touch mnt/x", mount, "mnt", "empty"),
      Case("a mount point that is a file", "touch file; chainfs mount vda=a.qcow2 file", "file"),
      Case("a missing mount point", "chainfs mount vda=a.qcow2 nowhere", "nowhere"),
      Case("an unknown option", "chainfs mount -o fast vda=a.qcow2 mnt", "fast"),
      Case("an option's wrong value", "chainfs mount -o cache=much vda=a.qcow2 mnt", "much"),
      Case(
        "a socket at a file's path", "chainfs mount -o qmp=a.qcow2 vda=a.qcow2 mnt", "no socket"),
      Case("a socket without a path", "chainfs mount -o qmp vda=a.qcow2 mnt", "qmp=..."),
      Case("an NBD image", "chainfs mount vda=nbd://localhost/x mnt", "NBD"),
      Case("no device", "chainfs mount mnt", status: 64, "DEVICE=IMAGE"),
      Case("no such command", "chainfs frobnicate", status: 64, "frobnicate"),
    ]

    @Test("a bad mount fails with a sentence, mounts nothing and changes nothing", arguments: cases)
    func refused(_ bad: Case) throws {
      let box = try Sandbox()
      try box.run(
        "qemu-img create -q -f qcow2 a.qcow2 8M; qemu-img create -q -f qcow2 base.qcow2 8M")
      try box.run(bad.prepare)
      let files = "find . -type f ! -name sums -exec sha256sum {} + | sort"
      try box.run("\(files) > sums")
      let outcome = try box.tryRun(bad.command, seconds: 20)
      #expect(outcome.status == bad.status, "\(outcome.errorOutput)")
      for word in bad.words {
        #expect(outcome.errorOutput.contains(word), "\(outcome.errorOutput)")
      }
      #expect(try box.run("grep -c ' \(box.path)' /proc/mounts || true") == "0")
      try box.run("rm -f file; \(files) | cmp - sums")
    }

    @Test("an image that qemu holds is refused, and the holder named")
    func heldByQemu() throws {
      let box = try Sandbox()
      let outcome = try box.tryRun(
        """
        qemu-img create -q -f qcow2 a.qcow2 8M
        mkfifo hold; (echo 'write 0 64k'; cat hold) | qemu-io -f qcow2 a.qcow2 > written &
        exec 3>hold
        until grep -q wrote written; do :; done
        chainfs mount vda=a.qcow2 mnt; status=$?
        exec 3>&-
        wait
        exit $status
        """, seconds: 30)
      #expect(outcome.status == 1)
      #expect(outcome.errorOutput.contains("qemu-io"), "\(outcome.errorOutput)")
    }

    @Test("a mounted image cannot be written by qemu or mounted again")
    func heldByUs() throws {
      let box = try Sandbox()
      try box.run("qemu-img create -q -f qcow2 a.qcow2 8M; mkdir other")
      try box.run("chainfs mount vda=a.qcow2 mnt")
      #expect(try box.tryRun("qemu-io -f qcow2 -c 'write 0 64k' a.qcow2").status != 0)
      let second = try box.tryRun("chainfs mount vda=a.qcow2 other")
      #expect(second.status == 1 && second.errorOutput.contains("chainfs"), "\(second.errorOutput)")
      try box.run("chainfs unmount mnt; chainfs mount vda=a.qcow2 other; chainfs unmount other")
    }

    @Test("a corrupt-bit image opens read-only")
    func corruptReadOnly() throws {
      let box = try Sandbox()
      try box.run("qemu-img create -q -f qcow2 a.qcow2 8M; " + Self.patch(79, #"\x02"#))
      try box.run("chainfs mount -o ro vda=a.qcow2 mnt; cmp -n 65536 mnt/vda /dev/zero")
      try box.run("chainfs unmount mnt")
    }

    @Test("a busy mount is not unmounted")
    func busyUnmount() throws {
      let box = try Sandbox()
      try box.run("qemu-img create -q -f qcow2 a.qcow2 8M; chainfs mount vda=a.qcow2 mnt")
      let outcome = try box.tryRun("exec 3< mnt/vda; chainfs unmount mnt")
      #expect(
        outcome.status == 1 && outcome.errorOutput.contains("in use"), "\(outcome.errorOutput)")
      try box.run("cmp -n 4096 mnt/vda /dev/zero; chainfs unmount mnt")
    }
  }
}
