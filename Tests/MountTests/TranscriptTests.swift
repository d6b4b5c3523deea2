import Foundation
import TestSupport
import Testing

extension MountTests {
  /// What is said to chainfs and to QEMU, and answered the same by both.
  ///
  /// Both have a device `vda` of 16 MiB whose active image is a node `n0`: base.qcow2 <- n0.qcow2.
  @Suite(
    "Transcripts", .serialized, .timeLimit(.minutes(5)),
    .enabled(
      if: TranscriptPlayer.isPossible,
      "needs qemu-system-x86_64, and qemu.qmp by install-dependencies"))
  struct TranscriptTests {
    /// Commands with their arguments, and in between what is waited for.
    private static let session = #"""
      SLOW = 65536
      def overlay(node, file, **more):
          return {"node-name": node, "snapshot-file": f"{os.getcwd()}/{file}.qcow2",
                  "snapshot-node-name": file, **more}
      def action(data): return {"type": "blockdev-snapshot-sync", "data": data}
      def human(line): return "human-monitor-command", {"command-line": line}
      def session(): return [
          ("query-version", {}), ("query-block-jobs", {}), ("query-jobs", {}), ("query-status", {}),
          # What cannot be carried out; TranscriptTests+Faults.swift has more of it.
          ("qmp_capabilities", {}), ("no-such-command", {}),
          ("block-stream", {"device": "nope", "job-id": "j"}), ("block-stream", {"device": "nope"}),
          ("block-stream", {"device": "n0", "job-id": "1bad"}),
          ("block-stream", {"device": "vda", "job-id": ""}),
          ("block-stream", {"device": "n0", "job-id": "j", "base": "a", "base-node": "b"}),
          ("block-stream", {"device": "n0", "job-id": "j", "base": "nope"}),
          ("block-stream", {"device": "n0", "job-id": "j", "base-node": "nope"}),
          ("block-stream", {"device": "n0", "job-id": "j", "base-node": "n0"}),
          ("block-stream", {"device": "vda", "base-node": "vda"}),
          ("block-stream", {"device": "vda", "bottom": "vda"}),
          ("block-stream", {"device": "n0", "job-id": "j", "bottom": "nope"}),
          ("block-stream", {"device": "n0", "job-id": "j", "backing-file": "x"}),
          ("blockdev-snapshot-sync", {"node-name": "n0", "snapshot-file": "x"}),
          ("blockdev-snapshot-sync", {"node-name": "vda", "snapshot-file": "x"}),
          ("blockdev-snapshot-sync", {"device": "n0", "snapshot-file": "x"}),
          ("blockdev-snapshot-sync", {"device": "vda", "node-name": "n0", "snapshot-file": "x"}),
          ("blockdev-snapshot-sync", overlay("nope", "n1")),
          ("blockdev-snapshot-sync", dict(overlay("n0", "n1"), format="bogus")),
          ("blockdev-snapshot-sync", {"device": "vda", "snapshot-file": "/nowhere/x"}),
          ("blockdev-snapshot-sync", {"device": "vda", "snapshot-file": "/nowhere/x",
                                      "mode": "existing"}),
          ("transaction", {"actions": [action(overlay("n0", "n1")), {"type": "abort", "data": {}}]}),
          ("transaction", {"actions": [action(overlay("n0", "n1")), action(overlay("nope", "n2"))]}),
          ("block_resize", {"device": "n0", "size": 512}),
          ("block_resize", {"node-name": "vda", "size": 512}),
          ("block_resize", {"device": "vda", "size": -1}),
          ("block_resize", {"device": "vda", "size": 513}),
          ("block_resize", {"node-name": "n0", "size": (1 << 63) - 1}),
          ("block-job-cancel", {"device": "j"}), ("job-cancel", {"id": "j"}),
          ("block-job-set-speed", {"device": "j", "speed": 1}), human("block_stream n0 1 nope"),
          ("block-stream", {"device": "n0", "job-id": "j", "speed": -1}),
          # A stream that is cancelled.
          ("blockdev-snapshot-sync", overlay("n0", "n1")),
          ("blockdev-snapshot-sync", overlay("n1", "n1")),
          ("block-stream", {"device": "n1", "job-id": "j", "speed": SLOW}),
          ("settled", "running"), ("query-jobs", {}), human("info block-jobs"),
          ("block-job-set-speed", {"device": "j", "speed": SLOW // 2}), ("settled", "running"),
          ("block-job-set-speed", {"device": "j", "speed": -1}),
          ("block-job-complete", {"device": "j"}), ("job-complete", {"id": "j"}),
          human("block_job_complete j"), human("block_job_resume j"),
          ("job-finalize", {"id": "j"}), ("block-job-finalize", {"id": "j"}),
          ("job-dismiss", {"id": "j"}), ("block-job-dismiss", {"id": "j"}),
          ("job-resume", {"id": "j"}), ("block-job-resume", {"device": "j"}),
          ("block-job-pause", {"device": "j"}), ("until", "paused"), ("settled", "paused"),
          # While it is held nothing that is refused makes it stop and go on, which QEMU tells of.
          ("block-stream", {"device": "n1", "job-id": "k"}), ("block-stream", {"device": "vda"}),
          ("block-stream", {"device": "vda", "base-node": "n0"}),
          ("block-stream", {"device": "n1", "job-id": "k", "speed": -1}),
          ("blockdev-snapshot-sync", overlay("n1", "n2")),
          ("transaction", {"actions": [action({"device": "vda", "snapshot-file": "/nowhere/x"})]}),
          human("block_stream vda"), human("block_stream n1"), human("snapshot_blkdev vda /nowhere/x"),
          ("block-job-pause", {"device": "j"}), ("job-pause", {"id": "j"}),
          ("block-job-cancel", {"device": "j"}), human("block_job_cancel j"),
          human("info block-jobs"), ("job-complete", {"id": "j"}),
          ("block-job-set-speed", {"device": "j", "speed": SLOW}), ("settled", "paused"),
          ("block-job-resume", {"device": "j"}), ("until", "running"), ("settled", "running"),
          ("block-job-cancel", {"device": "j"}), ("until", "null"), ("query-block-jobs", {}),
          ("block-job-cancel", {"device": "j"}),
          # One that the device names, of a node, is held and is cancelled by its other names.
          ("block-stream", {"device": "n1", "speed": SLOW}), ("settled", "running"),
          ("job-pause", {"id": "vda"}), ("until", "paused"), ("settled", "paused"),
          ("job-cancel", {"id": "vda"}), ("until", "null"), ("query-jobs", {}),
          # Streams that complete: down to a base, and by hand in the end, or not.
          ("blockdev-snapshot-sync", overlay("n1", "n2")),
          ("block-stream", {"device": "n2", "job-id": "j", "base-node": "n0"}),
          ("until", "null"), ("query-jobs", {}),
          ("block-stream", {"device": "n2", "job-id": "k", "auto-finalize": False,
                            "auto-dismiss": False, "on-error": "stop"}),
          ("until", "BLOCK_JOB_PENDING"), ("query-block-jobs", {}), ("query-jobs", {}),
          ("job-cancel", {"id": "k"}), ("until", "concluded"), ("query-block-jobs", {}),
          ("query-jobs", {}), ("job-finalize", {"id": "k"}), ("job-cancel", {"id": "k"}),
          ("job-dismiss", {"id": "k"}), ("until", "null"), ("job-dismiss", {"id": "k"}),
          ("block-stream", {"device": "n2", "job-id": "k", "auto-finalize": False,
                            "auto-dismiss": False, "on-error": "stop"}),
          ("until", "BLOCK_JOB_PENDING"), ("query-block-jobs", {}), ("query-jobs", {}),
          ("job-pause", {"id": "k"}), ("job-resume", {"id": "k"}), ("job-dismiss", {"id": "k"}),
          ("job-complete", {"id": "k"}), human("info block-jobs"),
          ("block-stream", {"device": "vda", "job-id": "j"}),
          ("block-job-set-speed", {"device": "k", "speed": 1}),
          ("job-finalize", {"id": "k"}), ("until", "concluded"), ("query-block-jobs", {}),
          ("query-jobs", {}), ("job-cancel", {"id": "k"}), ("job-pause", {"id": "k"}),
          ("job-resume", {"id": "k"}), ("block-job-set-speed", {"device": "k", "speed": 1}),
          ("block-job-cancel", {"device": "k", "force": True}), human("info block-jobs"),
          ("block-job-dismiss", {"id": "k"}), ("until", "null"), ("query-jobs", {}),
          # Streams of nothing, and the machine.
          ("block-stream", {"device": "n2", "job-id": "j"}), ("until", "null"),
          ("block-stream", {"device": "n2", "job-id": "j", "auto-finalize": False}),
          ("until", "BLOCK_JOB_PENDING"), ("query-block-jobs", {}),
          ("job-finalize", {"id": "j"}), ("until", "null"), ("query-jobs", {}),
          ("block-stream", {"device": "vda", "auto-dismiss": False}), ("until", "concluded"),
          ("query-block-jobs", {}), ("job-dismiss", {"id": "vda"}), ("until", "null"),
          ("stop", {}), ("until", "STOP"), ("query-status", {}), human("info status"), ("stop", {}),
          ("cont", {}), ("until", "RESUME"), ("query-status", {}), ("cont", {}),
      ]
      """#

    /// Where the two may differ, and why.
    private static let rules = #"""
      def told(value):
          if isinstance(value, list): return [told(item) for item in value]
          # Each has its directory.
          if isinstance(value, str):
              value = value.replace(os.getcwd(), "DIRECTORY")
              return re.sub("Completed [1-9][0-9]* of", "Completed some of", value)
          if not isinstance(value, dict): return value
          value = dict(value)
          # Each has its clock and its version, and an old one tells of a debugger's state.
          value.pop("timestamp", None)
          value.pop("singlestep", None)
          if "qemu" in value: return sorted(value["qemu"]), type(value["package"]).__name__
          # How far a job has come is a matter of time, until it is at its end.
          for offset, length in [("offset", "len"), ("current-progress", "total-progress")]:
              if offset in value and 0 < value[offset] < value[length]: value[offset] = "some"
          return {name: told(item) for name, item in value.items()}
      """#

    /// Makes the images of both, and mounts those of one; then Python runs a script with `QEMU()` for the
    /// other, which is there while a block goes on.
    static func sandbox(_ module: String, _ script: String) throws -> Sandbox {
      let box = try Sandbox()
      let text = [Self.machine, module].joined(separator: "\n")
      try text.write(toFile: "\(box.path)/transcript.py", atomically: true, encoding: .utf8)
      try box.run(
        """
        mkdir ours theirs
        for place in ours theirs; do
          cd $place
          qemu-img create -q -f qcow2 base.qcow2 16M
          qemu-io -f qcow2 -c 'write -q -P 1 0 8M' base.qcow2
          qemu-img create -q -f qcow2 -b base.qcow2 -F qcow2 n0.qcow2
          cd ..
        done
        # A node has its name by the snapshot that made it, so n0 is made by one.
        rm ours/n0.qcow2
        chainfs mount -o qmp=ours/s vda=ours/base.qcow2 mnt
        timeout -s TERM -k 5 100 \(TranscriptPlayer.place)/bin/python3 - <<'END'
        import difflib, signal
        from transcript import *
        signal.signal(signal.SIGTERM, lambda *_: sys.exit("took too long"))
        def same(ours, theirs, least):
            assert len(theirs) > least, len(theirs)
            if ours != theirs:
                difference = difflib.unified_diff(theirs, ours, "QEMU", "chainfs", lineterm="")
                sys.exit("\\n".join(line[:400] for line in difference))
        os.chdir("ours")
        first = Library("s")
        made = first.execute("blockdev-snapshot-sync", {
            "device": "vda", "snapshot-file": os.path.abspath("n0.qcow2"),
            "snapshot-node-name": "n0"})
        assert made == {"return": {}}, made
        first.close()
        \(script)
        END
        """, seconds: 150)
      return box
    }

    private static let machine =
      TranscriptPlayer.script + """

        class QEMU:
            # A machine of nothing but a disk, in the directory.
            def __enter__(self):
                self.process = subprocess.Popen(
                    ["setpriv", "--pdeathsig", "KILL", "qemu-system-x86_64", "-M", "none",
                     "-accel", "tcg", "-display", "none", "-nodefaults",
                     "-drive", "if=none,id=vda,node-name=n0,file=n0.qcow2,format=qcow2",
                     "-qmp", "unix:s,server=on,wait=off"], stdout=subprocess.DEVNULL)
                while True:
                    try: return socket.socket(socket.AF_UNIX).connect("s")
                    except (FileNotFoundError, ConnectionRefusedError):
                        assert self.process.poll() is None
                        time.sleep(0.01)
            def __exit__(self, *_):
                self.process.terminate()
                self.process.wait()
        """

    @Test(
      "what the library and the shell of QEMU's authors are told is what QEMU tells them",
      arguments: ["Library", "Shell"])
    func replay(player: String) throws {
      let box = try Self.sandbox(
        Self.session + "\n" + Self.rules,
        """
        ours = play(\(player)("s"), session(), told)
        os.chdir("../theirs")
        with QEMU(): theirs = play(\(player)("s"), session(), told)
        same(ours, theirs, 250)
        """)
      try box.run(
        """
        chainfs unmount mnt
        for place in ours theirs; do qemu-img check -q $place/n2.qcow2; done
        qemu-img compare -q ours/n2.qcow2 theirs/n2.qcow2
        """)
    }
  }
}
