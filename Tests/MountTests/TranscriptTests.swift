import Foundation
import TestSupport
import Testing

extension MountTests {
  /// One session, played to chainfs and to QEMU's storage daemon: they say the same.
  ///
  /// Both have a chain of 16 MiB whose active image is a node `n0`: base.qcow2 <- n0.qcow2.
  @Suite(
    "Transcripts", .serialized, .timeLimit(.minutes(5)),
    .enabled(
      if: TranscriptPlayer.isPossible,
      "needs qemu-storage-daemon, and qemu.qmp by install-dependencies"))
  struct TranscriptTests {
    /// Commands with their arguments, and in between what is waited for.
    private static let session = """
      SLOW = 65536
      def overlay(node, file):
          return {"node-name": node, "snapshot-file": f"{os.getcwd()}/{file}.qcow2",
                  "snapshot-node-name": file}
      def session(): return [
          ("query-version", {}), ("query-block-jobs", {}), ("query-jobs", {}),
          ("qmp_capabilities", {}), ("no-such-command", {}),
          # What cannot be carried out.
          ("block-stream", {"device": "nope", "job-id": "j"}),
          ("block-stream", {"device": "n0"}), ("block-stream", {"job-id": "j"}),
          ("block-stream", {"device": "n0", "job-id": "1bad"}),
          ("block-stream", {"device": "n0", "job-id": "j", "speed": "fast"}),
          ("block-stream", {"device": "n0", "job-id": "j", "on-error": "never"}),
          ("block-stream", {"device": "n0", "job-id": "j", "unknown": 1}),
          ("block-stream", {"device": "n0", "job-id": "j", "base": "a", "base-node": "b"}),
          ("block-stream", {"device": "n0", "job-id": "j", "base": "nope"}),
          ("block-stream", {"device": "n0", "job-id": "j", "base-node": "nope"}),
          ("block-stream", {"device": "n0", "job-id": "j", "base-node": "n0"}),
          ("block-stream", {"device": "n0", "job-id": "j", "bottom": "nope"}),
          ("block-stream", {"device": "n0", "job-id": "j", "backing-file": "x"}),
          ("blockdev-snapshot-sync", {"node-name": "n0"}),
          ("blockdev-snapshot-sync", {"node-name": "n0", "snapshot-file": "x"}),
          ("blockdev-snapshot-sync", overlay("nope", "n1")),
          ("blockdev-snapshot-sync", dict(overlay("n0", "n1"), format="bogus")),
          ("block-job-cancel", {"device": "j"}), ("block-job-cancel", {}),
          ("block-job-set-speed", {"device": "j", "speed": 1}),
          ("block-job-pause", {"device": "j"}), ("job-cancel", {"id": "j"}),
          ("job-dismiss", {"id": "j"}), ("block-stream", {"device": "n0", "job-id": "j", "speed": -1}),
          # A stream that is cancelled.
          ("blockdev-snapshot-sync", overlay("n0", "n1")),
          ("blockdev-snapshot-sync", overlay("n1", "n1")),
          ("block-stream", {"device": "n1", "job-id": "j", "speed": SLOW}),
          ("settled", "running"), ("query-jobs", {}),
          ("block-stream", {"device": "n1", "job-id": "k"}),
          ("block-job-set-speed", {"device": "j", "speed": SLOW // 2}), ("settled", "running"),
          ("block-job-set-speed", {"device": "j", "speed": -1}),
          ("block-job-set-speed", {"device": "j", "speed": True}),
          ("block-job-set-speed", {"device": "j", "speed": 1 << 63}),
          ("block-job-set-speed", {"device": "j"}), ("block-job-set-speed", {"speed": 1}),
          ("block-job-complete", {"device": "j"}), ("job-finalize", {"id": "j"}),
          ("job-dismiss", {"id": "j"}), ("block-job-cancel", {"device": "j", "force": "yes"}),
          ("block-job-pause", {"device": "j"}), ("until", "paused"), ("settled", "paused"),
          ("block-job-pause", {"device": "j"}), ("block-job-cancel", {"device": "j"}),
          ("block-job-set-speed", {"device": "j", "speed": SLOW}), ("settled", "paused"),
          ("block-job-resume", {"device": "j"}), ("until", "running"),
          ("block-job-resume", {"device": "j"}), ("settled", "running"),
          ("block-job-cancel", {"device": "j"}), ("until", "null"), ("query-block-jobs", {}),
          ("block-job-cancel", {"device": "j"}),
          # Streams that complete: down to a base, by hand in the end, and of nothing.
          ("blockdev-snapshot-sync", overlay("n1", "n2")),
          ("block-stream", {"device": "n2", "job-id": "j", "base-node": "n0"}),
          ("until", "null"), ("query-jobs", {}),
          ("block-stream", {"device": "n2", "job-id": "k", "auto-finalize": False,
                            "auto-dismiss": False, "on-error": "stop"}),
          ("until", "BLOCK_JOB_PENDING"), ("query-block-jobs", {}), ("query-jobs", {}),
          ("job-pause", {"id": "k"}), ("job-dismiss", {"id": "k"}),
          ("block-job-set-speed", {"device": "k", "speed": 1}),
          ("job-finalize", {"id": "k"}), ("until", "concluded"), ("query-block-jobs", {}),
          ("query-jobs", {}), ("job-cancel", {"id": "k"}), ("block-job-dismiss", {"id": "k"}),
          ("until", "null"), ("query-jobs", {}),
          ("block-stream", {"device": "n2", "job-id": "j"}), ("until", "null"),
          ("block-stream", {"device": "n2", "job-id": "j", "auto-finalize": False}),
          ("until", "BLOCK_JOB_PENDING"), ("query-block-jobs", {}),
          ("job-finalize", {"id": "j"}), ("until", "null"), ("query-jobs", {}),
      ]
      """

    /// Where the two may differ, and why.
    private static let rules = """
      def told(value):
          if isinstance(value, list): return [told(item) for item in value]
          if isinstance(value, str):
              # Each has its directory.
              value = value.replace(os.getcwd(), "DIRECTORY")
              # QEMU names the device in this, and the node where none has it; the storage daemon has no
              # devices.
              return value.replace("Node 'vda' is busy", "Node 'n1' is busy")
          if not isinstance(value, dict): return value
          value = dict(value)
          # Each has its clock and its version.
          value.pop("timestamp", None)
          if "qemu" in value: return sorted(value["qemu"]), type(value["package"]).__name__
          # How far a job has come is a matter of time, until it is at its end.
          for offset, length in [("offset", "len"), ("current-progress", "total-progress")]:
              if offset in value and 0 < value[offset] < value[length]: value[offset] = "some"
          return {name: told(item) for name, item in value.items()}
      """

    @Test(
      "what the library and the shell of QEMU's authors are told is what QEMU tells them",
      arguments: ["Library", "Shell"])
    func replay(player: String) throws {
      let box = try Sandbox()
      let text = [TranscriptPlayer.script, Self.session, Self.rules].joined(separator: "\n")
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
        os.chdir("ours")
        first = Library("s")
        made = first.execute("blockdev-snapshot-sync", {
            "device": "vda", "snapshot-file": os.path.abspath("n0.qcow2"),
            "snapshot-node-name": "n0"})
        assert made == {"return": {}}, made
        first.close()
        ours = play(\(player)("s"), session(), told)
        os.chdir("../theirs")
        # The export holds the node, and takes its overlay on as a guest's device does.
        daemon = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", "qemu-storage-daemon", "--pidfile", "pid",
             "--blockdev", "driver=file,node-name=file,filename=n0.qcow2",
             "--blockdev", "driver=qcow2,node-name=n0,file=file",
             "--nbd-server", "addr.type=unix,addr.path=nbd",
             "--export", "nbd,id=export,node-name=n0,writable=on",
             "--chardev", "socket,id=socket,path=s,server=on,wait=off",
             "--monitor", "chardev=socket"], stdout=subprocess.DEVNULL)
        try:
            while not os.path.exists("pid"): assert daemon.poll() is None
            theirs = play(\(player)("s"), session(), told)
        finally:
            daemon.terminate()
            daemon.wait()
        assert len(theirs) > 150, len(theirs)
        if ours != theirs:
            sys.exit("\\n".join(difflib.unified_diff(theirs, ours, "QEMU", "chainfs", lineterm="")))
        END
        chainfs unmount mnt
        for place in ours theirs; do qemu-img check -q $place/n2.qcow2; done
        qemu-img compare -q ours/n2.qcow2 theirs/n2.qcow2
        """, seconds: 150)
    }
  }
}
