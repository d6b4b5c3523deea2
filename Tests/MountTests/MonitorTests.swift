import Foundation
import TestSupport
import Testing

extension MountTests {
  @Suite("Monitor", .serialized, .timeLimit(.minutes(5)))
  struct MonitorTests {
    /// The prompt on a pseudo-terminal, for the scripts below. The editor draws as it likes, so what is looked
    /// for is what lines print.
    private static let terminal = """
      import errno, fcntl, os, pty, select, signal, struct, subprocess, sys, termios, time
      class Terminal:
          def __init__(self):
              self.seen = ""
              self.pid, self.file = pty.fork()
              if self.pid == 0:
                  # The shell's jobs ignore some signals.
                  signal.signal(signal.SIGINT, signal.SIG_DFL)
                  os.environ.update(TERM="xterm", XDG_STATE_HOME=os.getcwd() + "/state")
                  os.execvp("chainfs", ["chainfs", "monitor", "mnt"])
              fcntl.ioctl(self.file, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 200, 0, 0))
              self.prompt()
          def prompt(self):
              self.until("(chainfs) ")
              # It is drawn a moment before the terminal leaves the keys to the editor.
              limit = time.monotonic() + 40
              while termios.tcgetattr(self.file)[3] & termios.ICANON:
                  assert time.monotonic() < limit, "the editor does not begin"
                  time.sleep(0.001)
          def send(self, keys): os.write(self.file, keys.encode())
          def more(self):
              assert select.select([self.file], [], [], 40)[0], "nothing after %r" % self.seen
              try: piece = os.read(self.file, 65536)
              except OSError: piece = b""
              self.seen += piece.decode(errors="replace")
              return piece
          def until(self, text):
              while text not in self.seen:
                  assert self.more(), "ended without %r: %r" % (text, self.seen)
              end = self.seen.index(text) + len(text)
              found, self.seen = self.seen[:end], self.seen[end:]
              return found
          def enter(self, keys, text):
              self.send(keys + "\\r")
              self.until("\\r\\n" + text)
              self.prompt()
          def end(self):
              while self.more(): pass
              return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
      """

    private func mounted(_ options: String = "") throws -> Sandbox {
      let box = try Sandbox()
      try Self.terminal.write(
        toFile: "\(box.path)/terminal.py", atomically: true, encoding: .utf8)
      try box.run(
        """
        qemu-img create -q -f qcow2 base.qcow2 16M; qemu-io -f qcow2 -c 'write -q 0 8M' base.qcow2
        qemu-img create -q -f qcow2 -b base.qcow2 -F qcow2 mid.qcow2
        qemu-io -f qcow2 -c 'write -q 0 12M' mid.qcow2
        qemu-img create -q -f qcow2 -b mid.qcow2 -F qcow2 top.qcow2
        qemu-img create -q -f qcow2 other.qcow2 1M
        chainfs mount \(options) vda=top.qcow2 vdb=other.qcow2 mnt
        """)
      return box
    }

    private func python(_ box: Sandbox, _ script: String) throws {
      try box.python(script, from: "terminal", seconds: 90)
    }

    @Test("lines from a pipe print what QEMU's monitor prints, and nothing else")
    func piped() throws {
      let box = try mounted()
      try box.run(
        """
        printf 'info block\\n\\ninfo block-jobs' | chainfs monitor mnt > out
        # The monitor has the names of nodes too.
        cat mnt/.jobs/block mnt/.jobs/status | cmp - <(sed 's/ (#[^)]*)//' out)
        [ "$(echo block_job_cancel vda | chainfs monitor mnt)" = "Error: Block job 'vda' not found" ]
        [ "$(echo 'info no' | chainfs monitor mnt/)" = "unknown command: 'info no'" ]
        printf 'block_stream vda 1B base.qcow2\\ninfo block-jobs\\nq\\ninfo block\\n' > lines
        chainfs monitor mnt < lines > out
        grep -q '^Streaming device vda: .* speed limit 1 bytes/s$' out; [ $(wc -l < out) = 1 ]
        echo "snapshot_blkdev vdb \\"$PWD/s n.qcow2\\"" | chainfs monitor mnt
        grep -q 's n.qcow2$' mnt/.jobs/vdb/chain
        echo block_job_cancel vda | chainfs monitor mnt
        [ "$(head -n 1 mnt/.jobs/vda/status)" = 'No active jobs' ]
        echo help | chainfs monitor mnt > out
        grep -q '^block_stream device .speed .base.. -- copy data' out
        [ "$(grep '^quit' out)" = 'quit|q -- leave this prompt; the mount stays' ]
        echo quit | chainfs monitor mnt; mountpoint -q mnt
        """)
      let device = try box.tryRun("echo help | chainfs monitor mnt/vda")
      #expect(device.status == 1 && device.errorOutput.contains("chainfs monitor mnt"))
      let long = try box.tryRun(
        "{ head -c 4096 /dev/zero | tr '\\0' x; echo; } | chainfs monitor mnt")
      #expect(long.status == 1 && long.errorOutput.contains("monitor: Invalid argument"))
      try box.run("chainfs unmount mnt")
      let none = try box.tryRun("echo help | chainfs monitor mnt")
      #expect(none.status == 1 && none.errorOutput.contains("mounted chainfs"))
    }

    @Test("the file takes a line at a write and gives its text to the same open alone")
    func file() throws {
      let box = try mounted()
      try box.run(
        """
        [ $(stat -c %a mnt/.jobs/monitor) = 600 ]
        cat mnt/.jobs/monitor | grep -q 'such as help'
        exec 3<> mnt/.jobs/monitor 4<> mnt/.jobs/monitor
        echo info block >&3; echo info block-jobs >&4
        cat <&3 | sed 's/ (#[^)]*)//' | cmp - mnt/.jobs/block; [ -z "$(cat <&3)" ]
        [ "$(cat <&4)" = 'No active jobs' ]
        echo info block-jobs >&3; echo info block vdb >&4; echo info block vda >&4
        [ "$(cat <&3)" = 'No active jobs' ]; grep -q '^vda (#' <&4
        exec 3>&- 4>&-
        # Nobody who could be told: the line is carried out all the same.
        echo block_stream vda 1B > mnt/.jobs/monitor
        until [ "$(cat mnt/.jobs/status)" != 'No active jobs' ]; do sleep 0.01; done
        echo > mnt/.jobs/vda/cancel
        """)
      try python(
        box,
        """
        file = os.open("mnt/.jobs/monitor", os.O_RDWR)
        os.write(file, b"info block")
        text = os.read(file, 4096)
        assert text.startswith(b"vda (#") and text.endswith(b"\\n"), text
        # At the start it begins again, however small the pieces.
        assert os.pread(file, 5, 0) + os.pread(file, 4096, 5) == text
        assert os.pread(file, 4096, 0) == text
        for bad in [b"x" * 4096, b"a\\0b", b"\\xff", b"info block\\ninfo block\\n"]:
            try: os.write(file, bad); raise SystemExit("taken: %r" % bad[:20])
            except OSError as error: assert error.errno == errno.EINVAL
        assert os.pread(file, 4096, 0) == text
        assert os.write(file, b"x" * 4095) == 4095
        assert os.read(file, 9000) == b"unknown command: '" + b"x" * 4095 + b"'\\n"
        """)
      try box.run("chainfs unmount mnt")
    }

    @Test("a line that takes long holds up nobody, and whoever waits for it can be killed")
    func longCancel() throws {
      // A frozen file system keeps the cancel waiting for as long as the test wants.
      let box = try Sandbox()
      try Self.terminal.write(
        toFile: "\(box.path)/terminal.py", atomically: true, encoding: .utf8)
      try box.run(
        """
        truncate -s 64M host.img; mkfs.ext4 -q host.img; mkdir host; mount -o loop host.img host
        qemu-img create -q -f qcow2 host/base.qcow2 16M
        qemu-io -f qcow2 -c 'write -q 0 16M' host/base.qcow2
        qemu-img create -q -f qcow2 -b base.qcow2 -F qcow2 host/top.qcow2
        qemu-img create -q -f qcow2 other.qcow2 1M
        chainfs mount -o threads=1,cache=none vda=host/top.qcow2 vdb=other.qcow2 mnt
        echo block_stream vda 1B | chainfs monitor mnt
        printf guest | dd of=mnt/vda conv=notrunc status=none
        trap 'fsfreeze -u host 2> unfrozen || true' EXIT
        fsfreeze -f host
        timeout -s KILL 90 python3 - <<'END'
        from terminal import *
        def monitor(): return os.open("mnt/.jobs/monitor", os.O_RDWR | os.O_NONBLOCK)
        def refused(call, number):
            try: call()
            except OSError as error: assert error.errno == number, error
            else: raise SystemExit("not refused")
        first, second = monitor(), monitor()
        os.write(first, b"block_job_cancel vda")
        refused(lambda: os.read(first, 99), errno.EAGAIN)
        os.set_blocking(second, True)
        os.write(second, b"info block vdb")
        assert os.read(second, 4096).startswith(b"\\nvdb (#")
        assert open("mnt/vdb", "rb").read(4) == bytes(4)
        # A reader that waits, and goes.
        os.set_blocking(first, True)
        reader = os.fork()
        if reader == 0:
            os.read(first, 99)
            os._exit(0)
        os.kill(reader, signal.SIGKILL)
        assert os.waitpid(reader, 0)[1] == signal.SIGKILL
        taken = 0
        try:
            while True:
                os.write(first, b"info block-jobs\\n")
                taken += 1
        except OSError as error: assert error.errno == errno.EBUSY, error
        assert 63 <= taken <= 64, taken
        subprocess.run(["fsfreeze", "-u", "host"], check=True)
        assert os.read(first, 4096) == b"No active jobs\\n"
        END
        trap - EXIT
        grep -q '^state: cancelled' mnt/.jobs/vda/status
        chainfs unmount mnt; qemu-img check -q host/top.qcow2; umount host
        """, seconds: 110)
    }

    @Test("on a terminal lines are edited and completed, and come back in the next session")
    func terminal() throws {
      let box = try mounted()
      try python(
        box,
        """
        t = Terminal()
        # Emacs' keys: to the start, forwards, to the end, a word back, erased up to the start.
        t.enter("nfo block-job\\x01i\\x05s", "No active jobs\\r\\n")
        t.enter("junk\\x15info block\\x1b[D\\x1b[D\\x7fl\\x1b[3~\\x05\\x17block-jobs", "No active jobs\\r\\n")
        # Tab: a command, a subject, a device, a layer, a path.
        t.enter("help block_st\\t", "block_stream device [speed")
        t.enter("info block-\\t", "No active jobs\\r\\n")
        t.send("info block \\t\\t")
        t.until("vda  vdb\\r\\n")
        t.enter("b", "\\r\\nvdb (#")
        t.enter("block_stream vda 1B b\\t", "")
        t.enter("info block-jobs", "Streaming device vda: ")
        t.enter("block_job_ca\\tvda", "")
        os.makedirs("new dir")
        t.enter("snapshot_blkdev vda \\tne\\ts\\\\\\"n\\"", "")
        t.send("info block vda\\r")
        t.until("): %s/new dir/s\\"n (qcow2)" % os.getcwd())
        t.prompt()
        # Ctrl-C drops the line, Ctrl-D at its start leaves.
        t.send("block_stream vdb 1 \\u00fc\\x01")
        t.send("\\x03")
        t.until("^C\\r\\n")
        t.prompt()
        t.enter("info block-jobs", "No active jobs\\r\\n")
        t.send("\\x04")
        assert t.end() == 0
        assert os.stat("state/chainfs/history").st_mode & 0o777 == 0o600
        last = open("state/chainfs/history").read().splitlines()[-2:]
        assert last == ["info block vda", "info block-jobs"], last
        # The next session has them; the arrow goes up, Ctrl-R finds.
        t = Terminal()
        t.enter("\\x1b[A\\x1b[A", "vda (#")
        t.enter("\\x12vdb\\x05", "\\r\\nvdb (#")
        t.send("q\\r")
        assert t.end() == 0
        # No more than a thousand; and a place that cannot be had is no matter.
        open("state/chainfs/history", "a").write("help\\n" * 2000)
        t = Terminal()
        t.send("quit\\r")
        assert t.end() == 0
        assert open("state/chainfs/history").read() == "help\\n" * 999 + "quit\\n"
        os.rename("state", "old")
        open("state", "w").close()
        t = Terminal()
        t.enter("info block-jobs", "No active jobs\\r\\n")
        t.send("\\x04")
        assert t.end() == 0
        """)
      try box.run("mountpoint -q mnt; chainfs unmount mnt")
    }

    @Test("a prompt keeps no mount from being unmounted, and ends when it is gone")
    func unmounted() throws {
      let box = try mounted()
      try python(
        box,
        """
        t = Terminal()
        t.enter("info block-jobs", "No active jobs\\r\\n")
        subprocess.run(["chainfs", "unmount", "mnt"], check=True)
        t.send("info block\\r")
        t.until("chainfs: mnt: no chainfs is mounted here any more\\r\\n")
        assert t.end() == 1
        """)
    }
  }
}
