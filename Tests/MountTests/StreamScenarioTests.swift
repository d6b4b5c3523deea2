import TestSupport
import Testing

extension MountTests {
  /// What QEMU's own tests of streaming (iotest 030) ask of it, asked anew over QMP: the events in their
  /// order, what the queries tell in between, and the images afterwards by QEMU's tools. Errors are in
  /// StreamScenarioTests+Errors.swift.
  @Suite("Stream scenarios", .serialized, .timeLimit(.minutes(10)))
  struct StreamScenarioTests {
    @Test("a stream of the whole chain has its events in order, and the image has all of it")
    func stream() throws {
      let chain = try ScenarioChain()
      try chain.python(
        """
        c = Client()
        assert jobs(c) == []
        starts(c)
        assert ends(c, DONE) is None
        assert [e["data"]["id"] for e in c.events if "id" in e["data"]] == ["vda"] * 6
        stamps = [(e["timestamp"]["seconds"], e["timestamp"]["microseconds"]) for e in c.events]
        assert stamps == sorted(stamps), stamps
        """)
      try chain.run("ends ''; [ \"$(map top.qcow2)\" = \"$(map base.raw)\" ]")
    }

    @Test("a held job stands still until it is let go", arguments: ["job", "block-job"])
    func pause(verbs: String) throws {
      let chain = try ScenarioChain()
      try chain.python(
        """
        key = "id" if "\(verbs)" == "job" else "device"
        c = Client()
        starts(c, speed=65536)
        waits(c, status="running", paused=False)
        c("\(verbs)-pause", **{key: "vda"})
        held = waits(c, status="paused", paused=True, busy=False)
        assert held["io-status"] == "ok" and held["offset"] < held["len"], held
        # Nothing else holds it now.
        c("block-job-set-speed", device="vda", speed=0)
        with open("mnt/vda", "rb", buffering=0) as disk:
            for n in range(64):
                disk.seek(n * 65536); disk.read(65536)
                assert waits(c)["offset"] == held["offset"]
        c("\(verbs)-resume", **{key: "vda"})
        assert ends(c, DONE.replace("running", "running paused running")) is None
        """)
      try chain.run("ends ''; [ \"$(map top.qcow2)\" = \"$(map base.raw)\" ]")
    }

    @Test("a stream down to the backing file has nothing to do, and writes nothing")
    func noOp() throws {
      let chain = try ScenarioChain(
        "\(ScenarioChain.usual); map top.qcow2 > map; head -c 64k top.qcow2 > header")
      try chain.python(
        """
        c = Client()
        for base in [{"base": "mid.qcow2"}, {"base": os.path.abspath("mid.qcow2")},
                     {"base_node": nodes(c)[1]}, {"bottom": nodes(c)[0]}]:
            starts(c, **base)
            assert ends(c, DONE, len=0, offset=0) is None
            assert len(nodes(c)) == 3
        """)
      try chain.run("ends mid.qcow2; [ \"$(map top.qcow2)\" = \"$(cat map)\" ]")
      try chain.run("cmp header <(head -c 64k top.qcow2)")
    }

    @Test(
      "a stream down to a base copies what lies above it, and keeps it",
      arguments: [
        "base='base.raw'", "base=os.path.abspath('base.raw')", "base_node=nodes(c)[2]",
        "bottom=nodes(c)[1]",
      ])
    func partial(base: String) throws {
      let chain = try ScenarioChain()
      try chain.python(
        """
        c = Client()
        starts(c, \(base))
        assert ends(c, DONE) is None
        assert len(nodes(c)) == 2
        inserted = c("query-block")[0]["inserted"]
        assert inserted["backing_file"] == os.path.abspath("base.raw"), inserted
        """)
      try chain.run("ends base.raw; [ \"$(map top.qcow2)\" = \"$(map mid.qcow2)\" ]")
      try chain.run("qemu-img info top.qcow2 | grep -qx 'backing file format: raw'")
    }

    @Test("a device that there is not, a node without a job's name, and no base: QEMU's words")
    func refused() throws {
      let chain = try ScenarioChain()
      try chain.python(
        """
        c = Client()
        assert c.fails("block-stream", device="nonexistent") == (
            "GenericError: Cannot find device='nonexistent' nor node-name='nonexistent'")
        assert c.fails("block-stream", device=nodes(c)[1]) == "GenericError: Invalid job ID ''"
        assert c.fails("block-stream", device="vda", base="nonexistent") == (
            "GenericError: Can't find 'nonexistent' in the backing chain")
        assert c.fails("block-stream", device="vda", base="top.qcow2") == (
            "GenericError: Can't find 'top.qcow2' in the backing chain")
        for name in ["base_node", "bottom"]:
            assert c.fails("block-stream", device="vda", **{name: "nonexistent"}) == (
                "GenericError: Cannot find device='' nor node-name='nonexistent'")
        assert jobs(c) == [] and c.events == []
        # The active image is streamed by its node's name as well, and its device names the job.
        starts(c, device=nodes(c)[0])
        assert ends(c, DONE) is None
        """)
      try chain.run("ends ''")
    }

    @Test("a stream into a read-only disk is refused, whether its files could be written or not")
    func readOnly() throws {
      let chain = try ScenarioChain()
      let script = """
        c = Client()
        for more in [{}, {"job_id": "j"}, {"base": "base.raw"}]:
            assert c.fails("block-stream", device="vda", **more) == (
                "GenericError: Block node is read-only")
        assert c("query-block")[0]["inserted"]["ro"] and jobs(c) == [] and c.events == []
        """
      try chain.run("chainfs unmount mnt; sha256sum *.qcow2 > sums")
      try chain.mount(",ro")
      try chain.python(script)
      try chain.run("ends mid.qcow2; sha256sum -c --quiet sums")
      // On a file system that is read-only itself, there is no other way to mount it.
      try chain.run("mkdir host; mount --bind . host; mount -o remount,ro,bind host")
      let refusal = try chain.box.tryRun("chainfs mount vda=host/top.qcow2 mnt")
      #expect(refusal.status == 1 && refusal.errorOutput.contains("Read-only file system"))
      try chain.run("chainfs mount -o ro,qmp=s vda=host/top.qcow2 mnt")
      try chain.python(script)
      try chain.run("chainfs unmount mnt; umount host; sha256sum -c --quiet sums")
    }

    @Test(
      "what ends earlier reads as zeroes past its end, through the stream and after it",
      arguments: [(1, 4), (4, 1), (2, 1)], ["", "base.raw"])
    func smaller(sizes: (base: Int, mid: Int), keeps: String) throws {
      let (base, mid) = sizes
      let chain = try ScenarioChain(
        """
        sectors \(base) > base.raw
        overlay mid.qcow2 base.raw \(mid)M; fill mid.qcow2 1 512k 512
        overlay top.qcow2 mid.qcow2 4M; fill top.qcow2 2 3M 512
        """)
      try chain.python(
        """
        c = Client()
        starts(c\(keeps.isEmpty ? "" : ", base='\(keeps)'"))
        assert ends(c, DONE) is None
        """)
      try chain.run("cmp mnt/vda expected; ends '\(keeps)'")
      // The tail of the base was hidden by the layer that ended before it.
      if mid < base {
        try chain.run("cmp -n 65536 <(tail -c +$((\(mid) * 1048576 + 1)) expected) /dev/zero")
      }
    }

    @Test(
      "a job that runs when the mount ends leaves a good image, and goes on at the next",
      arguments: ["quit", "SIGTERM", "unmount"])
    func stopsDuringShutdown(way: String) throws {
      let chain = try ScenarioChain()
      try chain.python(
        """
        c = Client()
        starts(c, speed=65536)
        waits(c, status="running", speed=65536)
        way = "\(way)"
        pid = int(subprocess.check_output(["chainfs", "status", "--pid", "mnt"]))
        # Alive as long as somebody holds it open: a pid may be given to another.
        process = os.pidfd_open(pid)
        if way == "quit": assert c("quit") == {}
        elif way == "SIGTERM": signal.pidfd_send_signal(process, signal.SIGTERM)
        else: subprocess.run(["chainfs", "unmount", "mnt"], check=True)
        assert select.select([process], [], [], 50)[0]
        try:
            while True: c.events.append(c.line())
        except (EOFError, ConnectionResetError): pass
        assert c.words().startswith("created running"), c.events
        assert "BLOCK_JOB_COMPLETED" not in c.words(), c.events
        """)
      try chain.run(
        """
        ! mountpoint -q mnt; [ ! -e s ]; qemu-img check -q top.qcow2
        [ "$(backing top.qcow2)" = mid.qcow2 ]
        qemu-img compare -q -f raw -F qcow2 expected top.qcow2
        """)
      try chain.mount()
      try chain.python(
        """
        c = Client()
        job = waits(c, device="vda", speed=65536)
        assert job["offset"] < job["len"] == 4 * MIB, job
        c("block-job-set-speed", device="vda", speed=0)
        c.until("null")
        assert c.words() == "waiting pending BLOCK_JOB_COMPLETED concluded null", c.words()
        """)
      try chain.run("ends ''")
    }

    @Test("a limit is 0 unless it is given, holds from the start, and can be set anew")
    func setSpeed() throws {
      let chain = try ScenarioChain()
      try chain.python(
        """
        c = Client()
        # Its header waits, so that there is a job to look at.
        starts(c, auto_finalize=False, base="base.raw")
        assert waits(c, status="pending")["speed"] == 0
        c("job-cancel", id="vda")
        c.until("null")
        starts(c, speed=65536)
        assert jobs(c)[0]["speed"] == 65536
        for speed in [131072, 1, 98304]:
            c("block-job-set-speed", device="vda", speed=speed)
            assert jobs(c)[0]["speed"] == speed
        offset = jobs(c)[0]["offset"]
        c("block-job-cancel", device="vda")
        end = c.words()
        c.until("null")
        data, = [e["data"] for e in c.events if e["event"] == "BLOCK_JOB_CANCELLED"]
        assert offset <= data.pop("offset") < 4 * MIB
        assert data == {"device": "vda", "type": "stream", "len": 4 * MIB, "speed": 98304}, data
        assert c.words() == CANCELLED, c.words()
        """)
      try chain.run("ends mid.qcow2")
    }

    @Test("a negative limit is refused in QEMU's words, and changes nothing")
    func invalidSpeed() throws {
      let chain = try ScenarioChain()
      try chain.python(
        """
        c = Client()
        text = "GenericError: Parameter 'speed' expects a non-negative value"
        assert c.fails("block-stream", device="vda", speed=-1) == text
        assert jobs(c) == []
        assert c.words() == "created null", c.words()
        starts(c, speed=65536)
        for speed in [-1, -(1 << 63)]:
            assert c.fails("block-job-set-speed", device="vda", speed=speed) == text
        assert jobs(c)[0]["speed"] == 65536
        c("block-job-cancel", device="vda")
        c.until("null")
        assert c.words() == CANCELLED, c.words()
        """)
      try chain.run("ends mid.qcow2")
    }
  }
}
