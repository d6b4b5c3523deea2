import Foundation
import TestSupport
import Testing

extension MountTests {
  @Suite("QMP", .serialized, .timeLimit(.minutes(5)))
  struct QMPTests {
    /// An overlay over half a disk of data, mounted with a socket, and the client.
    private func mounted(_ options: String = "") throws -> Sandbox {
      let box = try Sandbox()
      try QMPClient.text.write(toFile: "\(box.path)/client.py", atomically: true, encoding: .utf8)
      try box.run(
        """
        qemu-img create -q -f qcow2 base.qcow2 16M; qemu-io -f qcow2 -c 'write -q -P 1 0 8M' base.qcow2
        qemu-img create -q -f qcow2 -b base.qcow2 -F qcow2 mid.qcow2
        qemu-io -f qcow2 -c 'write -q -P 2 2M 1M' mid.qcow2
        qemu-img create -q -f qcow2 -b mid.qcow2 -F qcow2 top.qcow2
        chainfs mount -o qmp=s\(options) vda=top.qcow2 mnt
        """)
      return box
    }

    @Test("the socket is its owner's from the first moment, is linked, and goes with the mount")
    func place() throws {
      let box = try mounted()
      try box.run(
        """
        [ "$(stat -c '%a %F' s)" = '600 socket' ]
        [ "$(readlink mnt/.jobs/qmp)" = "$PWD/s" ]
        ls -l mnt/.jobs | grep -q '^l.* qmp -> '
        """)
      try box.python("assert 'QMP' in Client('mnt/.jobs/qmp').greeting")
      let refused = try box.tryRun(
        """
        mkdir other; qemu-img create -q -f qcow2 o.qcow2 1M
        chainfs mount -o qmp=s vda=o.qcow2 other
        """)
      #expect(refused.status == 1 && refused.errorOutput.contains("another server answers there"))
      try box.run(
        """
        pid=$(chainfs status --pid mnt); kill -9 $pid; umount -l mnt
        until [ ! -d /proc/$pid ] || grep -q "^State:.Z" /proc/$pid/status; do :; done
        [ -S s ]
        chainfs mount -o qmp=s vda=top.qcow2 mnt
        """)
      try box.python("assert Client()('query-block-jobs') == []")
      try box.run("chainfs unmount mnt; [ ! -e s ]; qemu-img check -q top.qcow2 || [ $? = 3 ]")
    }

    @Test("a path that cannot be had is refused, and nothing is mounted or taken away")
    func refusedPlaces() throws {
      let box = try Sandbox()
      try box.run("qemu-img create -q -f qcow2 a.qcow2 1M; echo precious > file; mkdir dir")
      for (path, reason) in [
        ("file", "no socket"), ("dir", "no socket"), ("nowhere/s", "No such file"),
        ("$(printf 's%.0s' $(seq 120))", "at most 107 bytes"),
      ] {
        let outcome = try box.tryRun("chainfs mount -o qmp=\(path) vda=a.qcow2 mnt", seconds: 20)
        #expect(outcome.status == 1 && outcome.errorOutput.contains(reason), "\(path)")
      }
      try box.run("! mountpoint -q mnt; [ $(cat file) = precious ]; [ -d dir ]")
      let failed = try box.tryRun("chainfs mount -o qmp=s vda=missing.qcow2 mnt", seconds: 20)
      #expect(failed.status == 1)
      try box.run("[ ! -e s ]")
    }

    @Test("snapshot, stream, speed, queries, pause and cancel, as a script gives them")
    func walk() throws {
      let box = try mounted()
      try box.python(
        """
        c = Client()
        assert c("query-version")["package"] == "chainfs"
        assert {"name": "block-stream"} in c("query-commands")
        path = os.path.abspath("sn.qcow2")
        c("blockdev-snapshot-sync", device="vda", snapshot_file=path, snapshot_node_name="sn")
        block = c("query-block")[0]
        assert block["device"] == "vda" and block["inserted"]["node-name"] == "sn"
        assert block["inserted"]["backing_file_depth"] == 3
        assert block["inserted"]["image"]["backing-image"]["filename"].endswith("top.qcow2")
        nodes = c("query-named-block-nodes", flat=True)
        assert [n["backing_file_depth"] for n in nodes] == [3, 2, 1, 0]
        assert "backing-image" not in nodes[0]["image"]
        assert c.fails("block-stream", device="vda", base="a", base_node="b") == (
            "GenericError: 'base' and 'base-node' cannot be specified at the same time")
        assert c.fails("block-stream", device="no") == (
            "GenericError: Cannot find device='no' nor node-name='no'")
        assert c.fails("block-stream", device="vda", base="no") == (
            "GenericError: Can't find 'no' in the backing chain")
        assert c.fails("block-stream", device="vda", base_node="sn") == (
            "GenericError: Node 'sn' is not a backing image of 'vda'")
        assert c.fails("block-stream", device="vda", base_node="no") == (
            "GenericError: Cannot find device='' nor node-name='no'")
        assert c.fails("block-stream", device="vda", backing_file="x") == (
            "GenericError: backing file specified, but streaming the entire chain")
        assert c.fails("block-stream", device="vda", job_id="1bad") == (
            "GenericError: Invalid job ID '1bad'")
        for device in ["#vda.0", "#vda.1"]:
            assert c.fails("block-stream", device=device) == "GenericError: Invalid job ID ''"
        assert c.events == [], c.events
        assert c.fails("block-stream", device="vda", speed=-1) == (
            "GenericError: Parameter 'speed' expects a non-negative value")
        # QEMU makes the job before it looks at its speed.
        assert c.words() == "created null", c.words()
        c.events = []
        assert c.fails("block-job-cancel", device="x") == (
            "DeviceNotActive: Block job 'x' not found")
        assert c.fails("job-cancel", id="x") == "GenericError: Job not found"
        assert c.events == [], c.events
        c("block-stream", device="vda", job_id="j", base_node=nodes[3]["node-name"], speed=1)
        job, = c("query-block-jobs")
        assert job["device"] == "j" and job["speed"] == 1 and job["status"] == "running", job
        assert c("query-jobs")[0]["total-progress"] == 16 << 20
        assert c.fails("block-stream", device="vda") == (
            "GenericError: Node 'vda' is busy: block device is in use by block job: stream")
        assert c.fails("job-finalize", id="j") == (
            "GenericError: Job 'j' in state 'running' cannot accept command verb 'finalize'")
        assert c.fails("job-complete", id="j") == (
            "GenericError: Job 'j' in state 'running' cannot accept command verb 'complete'")
        c("block-job-set-speed", device="j", speed=2)
        assert c("query-block-jobs")[0]["speed"] == 2
        c("job-pause", id="j")
        assert c.fails("job-pause", id="j") == "GenericError: Job is already paused"
        assert c.fails("block-job-cancel", device="j") == (
            "GenericError: The block job for device 'j' is currently paused")
        c("job-resume", id="j")
        assert c.fails("job-resume", id="j") == (
            "GenericError: Can't resume a job that was not paused")
        c("block-job-cancel", device="j")
        c.until("null")
        assert c.words() == ("created running paused running aborting BLOCK_JOB_CANCELLED "
                             "concluded null"), c.words()
        c.events = []
        c("block-stream", device="vda", bottom=nodes[1]["node-name"])
        c.until("null")
        assert c.words() == ("created running waiting pending BLOCK_JOB_COMPLETED concluded null")
        assert len(c("query-named-block-nodes")) == 3
        """)
      try box.run(
        """
        qemu-img info -U sn.qcow2 | grep -q '^backing file: .*mid.qcow2'
        chainfs unmount mnt
        qemu-img check -q sn.qcow2
        qemu-img compare -q sn.qcow2 top.qcow2
        """)
    }

    @Test("a job that is to be finalized and dismissed, and events for all who negotiated")
    func finalize() throws {
      let box = try mounted()
      try box.python(
        """
        c, other, silent = Client(), Client(), Client(negotiate=False)
        c("block-stream", device="vda", auto_finalize=False, auto_dismiss=False)
        for client in [c, other]:
            client.until("BLOCK_JOB_PENDING")
            assert client.words() == "created running waiting pending BLOCK_JOB_PENDING"
        assert c.fails("job-pause", id="vda").endswith("cannot accept command verb 'pause'")
        assert c.fails("job-dismiss", id="vda").endswith("cannot accept command verb 'dismiss'")
        c("job-finalize", id="vda")
        assert c("query-jobs")[0]["status"] == "concluded"
        c("block-job-dismiss", id="vda")
        assert c("query-jobs") == []
        for client in [c, other]:
            client.until("null")
            assert client.events[0]["data"] == {"status": "created", "id": "vda"}
            assert client.words().endswith("BLOCK_JOB_COMPLETED concluded null")
        assert c.events == other.events
        assert not select.select([silent.socket], [], [], 0.2)[0]
        assert silent.raw("query-jobs")["error"]["class"] == "CommandNotFound"
        """)
      try box.run("chainfs unmount mnt; ! qemu-img info top.qcow2 | grep -q '^backing'")
    }

    @Test("the human monitor prints what QEMU prints")
    func humanMonitor() throws {
      let box = try mounted()
      try box.python(
        """
        c = Client()
        here = os.getcwd()
        assert c.hmp("info block-jobs") == "No active jobs\\r\\n"
        assert c.hmp("info block vda") == (
            f"vda (#vda.2): {here}/top.qcow2 (qcow2)\\r\\n    Cache mode:       writeback\\r\\n"
            f"    Backing file:     {here}/mid.qcow2 (chain depth: 2)\\r\\n")
        assert c.hmp("info block no") == ""
        assert c.hmp("block_stream vda 1 no") == (
            "Error: Can't find 'no' in the backing chain\\r\\n")
        assert c.hmp("block_job_cancel vda") == "Error: Block job 'vda' not found\\r\\n"
        assert c.hmp("snapshot_blkdev no /x") == (
            "Error: Cannot find device='no' nor node-name=''\\r\\n")
        assert c.hmp(f"snapshot_blkdev vda {here}/x bogus") == (
            "Error: Unknown file format 'bogus'\\r\\n")
        assert c.hmp(f"snapshot_blkdev vda {here}/sn.qcow2") == ""
        assert c.hmp("block_stream vda 1B base.qcow2") == ""
        # Held before it may be fast, or it would be over.
        assert c.hmp("block_job_pause vda") == ""
        assert c.hmp("block_job_set_speed vda 100") == ""
        line = c.hmp("info block-jobs")
        assert line.startswith("Streaming device vda: Completed "), line
        assert line.endswith(" of 16777216 bytes, speed limit 104857600 bytes/s\\r\\n"), line
        assert c.hmp("block_job_pause vda") == "Error: Job is already paused\\r\\n"
        assert c.hmp("block_job_cancel vda") == (
            "Error: The block job for device 'vda' is currently paused\\r\\n")
        assert c.hmp("block_job_resume vda") == ""
        c.until("null")
        assert c("query-block")[0]["inserted"]["backing_file"] == f"{here}/base.qcow2"
        """)
      try box.run("chainfs unmount mnt; qemu-img check -q sn.qcow2")
    }

    @Test("quit answers, and ends the mount as a signal does; a running job goes on at the next")
    func quit() throws {
      let box = try mounted()
      try box.python(
        """
        c = Client()
        c("block-stream", device="vda", speed=1)
        assert c("quit") == {}
        try:
            while True: c.line()
        except (EOFError, ConnectionResetError): pass
        """)
      try box.run(
        """
        for n in $(seq 500); do mountpoint -q mnt || [ -e s ] || break; sleep 0.02; done
        ! mountpoint -q mnt; [ ! -e s ]
        until chainfs mount -o qmp=s vda=top.qcow2 mnt 2> said; do sleep 0.05; done
        """)
      try box.python("assert Client()('query-jobs')[0]['id'] == 'vda'")
      try box.run("chainfs unmount mnt; qemu-img check -q top.qcow2")
    }

    @Test("garbage, half requests and a lost place harm nobody")
    func garbage() throws {
      let box = try mounted()
      try box.python(
        """
        good = Client()
        half = Client()
        half.send(b'{"execute": "query-')
        noise = Client(negotiate=False)
        def pump(client, data):
            # Reads as it writes, so that replies find room.
            client.socket.setblocking(False)
            got, limit = b"", time.time() + 40
            while data and time.time() < limit:
                r, w, _ = select.select([client.socket], [client.socket], [], 1)
                if r: got += client.socket.recv(65536)
                if w: data = data[client.socket.send(data[:65536]):]
            assert not data
            client.socket.settimeout(40)
            return got
        # Tens of thousands of faults, all of which are told.
        got = pump(noise, os.urandom(1 << 18)
                   + b'\\xff\\n{"execute": "qmp_capabilities", "id": "back"}\\n')
        while b'"id": "back"' not in got: got += noise.socket.recv(65536)
        big = Client()
        got = pump(big, b"[" + b" " * (1 << 20))
        while b"size limit" not in got: got += big.socket.recv(1000)
        big.send(b"\\n")
        assert big("query-jobs") == []
        deep = Client()
        deep.send(b"[" * 2000 + b"]" * 2000 + b"\\n")
        assert "nesting" in deep.reply()["error"]["desc"]
        half.send(b'jobs"}')
        assert half.reply() == {"return": []}
        gone = Client(); gone.send(b'{"execute": "query-jobs"}' * 100); gone.socket.close()
        shut = Client(); shut.send(b'{"execute": "query-jobs", "id": 7}')
        shut.socket.shutdown(socket.SHUT_WR)
        assert shut.reply() == {"return": [], "id": 7}
        assert shut.file.read() == ""
        good("block-stream", device="vda")
        good.until("null")
        """)
      try box.run("cmp <(head -c 1M mnt/vda) <(head -c 1M /dev/zero | tr '\\0' '\\1')")
      try box.run("chainfs unmount mnt; qemu-img check -q top.qcow2")
    }

    @Test("fifty clients at once, each in its order, and the device serves meanwhile")
    func manyClients() throws {
      let box = try mounted()
      try box.python(
        """
        clients = [Client() for _ in range(50)]
        for client in clients:
            for n in range(20):
                client.send(json.dumps({"execute": "query-block", "id": n}).encode())
        with open("mnt/vda", "rb") as file: assert file.read(1) == b"\\1"
        for client in clients:
            for n in range(20): assert client.reply()["id"] == n
        clients[0]("block-stream", device="vda")
        for client in clients: client.until("null")
        assert len({json.dumps(client.events) for client in clients}) == 1
        more = []
        try:
            for _ in range(200): more.append(Client(negotiate=False))
        except (EOFError, ConnectionResetError, BrokenPipeError): pass
        assert len(more) == 128 - 50, len(more)
        """, seconds: 100)
      try box.run("chainfs unmount mnt; qemu-img check -q top.qcow2")
    }

    @Test("a client that never reads is cut off, costs little, and holds up nobody")
    func neverReads() throws {
      let box = try Sandbox()
      try QMPClient.text.write(toFile: "\(box.path)/client.py", atomically: true, encoding: .utf8)
      try box.run(
        "qemu-img create -q -f qcow2 top.qcow2 4M; chainfs mount -o qmp=s vda=top.qcow2 mnt")
      try box.python(
        """
        import subprocess
        pid = int(subprocess.check_output(["chainfs", "status", "--pid", "mnt"]))
        def resident():
            for line in open(f"/proc/{pid}/status"):
                if line.startswith("VmRSS"): return int(line.split()[1])
        good, deaf, asks = Client(), Client(), Client(negotiate=False)
        asks.socket.setblocking(False)
        def ask():
            # Until nobody takes more.
            try:
                while True: asks.socket.send(b'{"execute": "query-block"}' * 1000)
            except BlockingIOError: pass
        for _ in range(100): good("block-stream", device="vda")
        before = resident()
        deadline = time.time() + 90
        cut = False
        jobs = 0
        while not cut and time.time() < deadline:
            for _ in range(50): good("block-stream", device="vda")
            jobs += 50
            ask()
            poll = select.poll(); poll.register(deaf.socket, select.POLLRDHUP)
            cut = bool(poll.poll(0))
        assert cut, jobs
        assert resident() - before < 8 << 10, (before, resident())
        good.events = []
        good("block-stream", device="vda")
        good.until("null")
        assert good.words() == "created running waiting pending BLOCK_JOB_COMPLETED concluded null"
        """, seconds: 120)
      try box.run("chainfs unmount mnt; qemu-img check -q top.qcow2", seconds: 30)
    }
  }
}
