import TestSupport
import Testing

extension MountTests {
  /// mount(8) looks for its helpers in /sbin only, so each test installs into a tree of its own and
  /// lays that over /sbin in a mount namespace of its own.
  @Suite("mount(8) and fstab", .serialized, .timeLimit(.minutes(3)))
  struct HelperTests {
    /// Installs into `root`, and gives the script that runs another one with it in place.
    private func install(in box: Sandbox) throws -> String {
      try box.run(
        "CHAINFS_BINARY=\(Program.path) DESTDIR=\(box.path)/root prefix=\(box.path)/usr"
          + " \(Program.project)/mount-helpers/install")
      try box.run(
        """
        test -x root\(box.path)/usr/bin/chainfs && test -x root/sbin/mount.chainfs
        test -f root\(box.path)/usr/share/man/man8/mount.chainfs.8
        mkdir -p usr/bin sbin && cp root\(box.path)/usr/bin/chainfs usr/bin/
        cp -a /sbin/. sbin/ && cp root/sbin/* sbin/
        qemu-img create -q -f qcow2 a.qcow2 16M
        qemu-io -f qcow2 -c 'write -q -P 7 0 1M' a.qcow2
        qemu-img create -q -f qcow2 -b a.qcow2 -F qcow2 b.qcow2
        qemu-img create -q -f qcow2 data.qcow2 8M
        """)
      return "mount --bind \(box.path)/sbin /sbin\ncd \(box.path)\nset -e -o pipefail\n"
    }

    private func inNamespace(_ box: Sandbox, _ script: String) throws -> CommandResult {
      try box.run("cat > script <<'END'\n\(script)\nEND")
      return try box.tryRun("unshare -m bash script", seconds: 60)
    }

    @Test("mount -t chainfs mounts, umount returns when the images are released")
    func mountByType() throws {
      let box = try Sandbox()
      let prologue = try install(in: box)
      let outcome = try inNamespace(
        box,
        prologue + """
          mount -t chainfs vda=\(box.path)/b.qcow2 mnt -o allow_other,noauto,_netdev,x-test=1
          stat -c '%n %s' mnt/vda
          findmnt -n -o SOURCE mnt
          cmp -n 1048576 mnt/vda <(head -c 1048576 /dev/zero | tr '\\0' '\\7') && echo same
          umount mnt
          qemu-io -f qcow2 -c 'write -q 0 64k' b.qcow2 && echo released
          """)
      #expect(outcome.errorOutput == "")
      #expect(
        outcome.output
          == "mnt/vda 16777216\nvda=\(box.path)/b.qcow2\nsame\nreleased\n")
    }

    @Test("mount -a mounts an fstab line of two devices, once")
    func fstab() throws {
      let box = try Sandbox()
      let prologue = try install(in: box)
      let source = "vda=\(box.path)/b.qcow2,vdb=\(box.path)/data.qcow2"
      let outcome = try inNamespace(
        box,
        prologue + """
          echo '\(source) \(box.path)/mnt chainfs defaults,nofail 0 0' > fstab
          mount -a -T fstab
          mount -a -T fstab
          ls mnt
          grep -c ' \(box.path)/mnt ' /proc/mounts
          umount mnt
          """)
      #expect(outcome.errorOutput == "")
      #expect(outcome.output == "vda\nvdb\n1\n")
    }

    @Test(
      "exit codes are those of mount(8)",
      arguments: [
        ("mount -t chainfs vda=/nowhere/x.qcow2 mnt", Int32(32), "/nowhere/x.qcow2"),
        ("mount -t chainfs vda=$PWD/b.qcow2 mnt -o bogus", 32, "bogus"),
        ("mount -t chainfs vda=$PWD/b.qcow2 mnt -o remount", 32, ""),
        ("sbin/mount.chainfs $PWD/b.qcow2 mnt", 1, "DEVICE=IMAGE"),
        ("sbin/mount.chainfs vda=$PWD/b.qcow2", 1, "usage"),
        ("sbin/mount.chainfs vda=$PWD/b.qcow2 mnt -f", 0, ""),
        ("mv usr/bin/chainfs gone; sbin/mount.chainfs vda=$PWD/b.qcow2 mnt", 2, "not found"),
      ])
    func exitCodes(command: String, status: Int32, words: String) throws {
      let box = try Sandbox()
      let prologue = try install(in: box)
      let outcome = try inNamespace(
        box,
        prologue + "set +e; \(command); status=$?; grep -q \" $PWD/mnt \" /proc/mounts && echo up\n"
          + "exit $status")
      #expect(outcome.status == status, "\(outcome.output)\(outcome.errorOutput)")
      #expect(outcome.output == "")
      #expect(words.isEmpty || outcome.errorOutput.contains(words))
    }

    @Test("a comma and a blank in an image's path arrive through fstab")
    func oddPaths() throws {
      let box = try Sandbox()
      let prologue = try install(in: box)
      let outcome = try inNamespace(
        box,
        prologue + """
          mkdir 'a,b c' && cp a.qcow2 'a,b c/i.qcow2'
          echo 'vda=\(box.path)/a\\,b\\040c/i.qcow2 \(box.path)/mnt chainfs defaults 0 0' > fstab
          mount -T fstab mnt
          stat -c %s mnt/vda
          umount mnt
          """)
      #expect(outcome.errorOutput == "")
      #expect(outcome.output == "16777216\n")
    }

    @Test("install and uninstall leave nothing behind")
    func uninstall() throws {
      let box = try Sandbox()
      let install =
        "CHAINFS_BINARY=\(Program.path) DESTDIR=$PWD/root \(Program.project)/mount-helpers/install"
      try box.run("\(install); test -x root/usr/local/bin/chainfs; \(install) --uninstall")
      #expect(try box.run("find root -type f") == "")
    }
  }
}
