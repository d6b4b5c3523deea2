import Foundation
import TestSupport
import Testing

extension MountTests {
  /// What QMP and HMP say of and do to the mount as a whole, besides jobs.
  @Suite("QMP of a machine", .serialized, .timeLimit(.minutes(5)))
  struct MachineTests {
    /// Two devices over one base of half a disk of data, mounted with a socket, and the client.
    private func mounted(_ options: String = "") throws -> Sandbox {
      let box = try Sandbox()
      try QMPClient.text.write(
        toFile: "\(box.path)/client.py", atomically: true, encoding: .utf8)
      try box.run(
        """
        qemu-img create -q -f qcow2 base.qcow2 4M; qemu-io -f qcow2 -c 'write -q -P 1 0 2M' base.qcow2
        qemu-img create -q -f qcow2 -b base.qcow2 -F qcow2 top.qcow2
        qemu-img create -q -f qcow2 -b base.qcow2 -F qcow2 other.qcow2
        chainfs mount -o qmp=s\(options) vda=top.qcow2 vdb=other.qcow2 mnt
        """)
      return box
    }

    @Test("stop holds all devices and cont lets them go, with an event for each change")
    func stopAndCont() throws {
      let box = try mounted(",cache=none")
      try box.python(
        """
        import threading
        c, other = Client(), Client()
        running = {"running": True, "status": "running"}
        paused = {"running": False, "status": "paused"}
        def events(client): return [e["event"] for e in client.events]
        assert c("query-status") == running
        assert c("stop") == {} and events(c) == ["STOP"] and "data" not in c.events[0]
        assert c("stop") == {} and events(c) == ["STOP"]
        assert c("query-status") == paused and c.hmp("info status") == "VM status: paused\\r\\n"
        got = []
        def read():
            with open("mnt/vdb", "rb", buffering=0) as file: got.append(file.read(4096))
        reader = threading.Thread(target=read); reader.start()
        # A job goes on, and what a job does is told.
        c("block-stream", device="vda")
        while c.events[-1].get("data", {}).get("status") != "null": c.events.append(c.line())
        assert "BLOCK_JOB_COMPLETED" in events(c) and not got
        # One device that goes on is a machine that runs.
        with open("mnt/.jobs/vda/cont", "w") as file: file.write("\\n")
        assert c("query-status") == running and events(c)[-1] == "RESUME"
        assert c.hmp("s") == "" and events(c)[-1] == "STOP"
        assert not got
        assert c.hmp("c") == "" and events(c)[-1] == "RESUME"
        reader.join(40)
        assert got == [b"\\1" * 4096]
        count = len(c.events)
        assert c("cont") == {} and len(c.events) == count
        for device in ["vda", "vdb"]:
            with open(f"mnt/.jobs/{device}/stop", "w") as file: file.write("\\n")
            assert c("query-status") == (running if device == "vda" else paused)
        assert c("cont") == {} and events(c)[-2:] == ["STOP", "RESUME"]
        assert other("query-status") == running and other.events == c.events
        """)
      try box.run("chainfs unmount mnt; qemu-img check -q top.qcow2")
    }

    @Test("a transaction takes its snapshots together, or none of them")
    func transaction() throws {
      let box = try mounted()
      try box.python(
        """
        c = Client()
        def snapshot(device, file, **more):
            data = {"device": device, "snapshot-file": os.path.abspath(file)}
            data.update({name.replace("_", "-"): value for name, value in more.items()})
            return {"type": "blockdev-snapshot-sync", "data": data}
        def refused(*actions): return c.fails("transaction", actions=list(actions))
        assert c("transaction", actions=[]) == {}
        assert refused(snapshot("vda", "a"), snapshot("no", "b")) == (
            "GenericError: Cannot find device='no' nor node-name=''")
        assert refused(snapshot("vda", "a"), {"type": "abort", "data": {}}) == (
            "GenericError: Transaction aborted using Abort action")
        assert refused(snapshot("vda", "a"), snapshot("vdb", "b", format="raw")) == (
            "GenericError: Unknown file format 'raw'")
        assert refused(snapshot("vda", "a", snapshot_node_name="n"),
                       snapshot("vdb", "b", snapshot_node_name="n")) == (
            "GenericError: New overlay node-name already in use")
        assert "two snapshots of one device" in refused(snapshot("vda", "a"), snapshot("vda", "b"))
        assert "only blockdev-snapshot-sync" in refused(
            snapshot("vda", "a"), {"type": "drive-backup", "data": {}})
        os.mkdir("b")
        assert "GenericError: vdb: " in refused(snapshot("vda", "a"), snapshot("vdb", "b"))
        os.rmdir("b")
        c("block-stream", device="vdb", speed=1)
        assert refused(snapshot("vda", "a"), snapshot("vdb", "b")) == (
            "GenericError: Node 'vdb' is busy: block device is in use by block job: stream")
        c("block-job-cancel", device="vdb")
        assert not os.path.exists("a") and not os.path.exists("b")
        assert [n["backing_file_depth"] for n in c("query-named-block-nodes")] == [1, 0, 1, 0]
        os.system("qemu-img create -q -f qcow2 -F qcow2 -b $PWD/other.qcow2 -u b 4M")
        assert c("transaction", actions=[snapshot("vda", "a", snapshot_node_name="na"),
                                         snapshot("vdb", "b", mode="existing")],
                 properties={"completion-mode": "individual"}) == {}
        nodes = [block["inserted"] for block in c("query-block")]
        assert [n["backing_file_depth"] for n in nodes] == [2, 2]
        assert nodes[0]["node-name"] == "na"
        assert [os.path.basename(n["file"]) for n in nodes] == ["a", "b"]
        """)
      try box.run(
        """
        printf x | dd of=mnt/vda conv=notrunc status=none
        chainfs unmount mnt
        for image in a b top.qcow2 other.qcow2; do qemu-img check -q $image; done
        qemu-img compare -q b other.qcow2
        """)
    }

    @Test("block_resize grows a device, and everybody sees the new size at once")
    func resize() throws {
      let box = try mounted(",growable")
      try box.python(
        """
        c = Client()
        file = os.open("mnt/vda", os.O_RDWR)
        assert os.fstat(file).st_size == 4 << 20
        def refused(size, **named):
            return c.fails("block_resize", size=size, **(named or {"device": "vda"}))
        assert refused(1, node_name="no") == (
            "GenericError: Cannot find device='' nor node-name='no'")
        assert refused(-512) == "GenericError: Parameter 'size' expects a >0 size"
        assert refused((8 << 20) + 1) == "GenericError: The new size must be a multiple of 512"
        assert refused((1 << 63) - 512) == (
            "GenericError: offset(9223372036854775296) exceeds maximum(9223372035781033984)")
        assert "never shrinks" in refused(1 << 20)
        assert "only the active image" in refused(8 << 20, node_name="#vda.0")
        def resize(size): return c.raw("block_resize", {"device": "vda", "size": size})
        assert resize(4 << 20) == {"return": {}}
        c("block-stream", device="vda", speed=1)
        def busy(name): return (
            f"GenericError: Node '{name}' is busy: block device is in use by block job: stream")
        assert refused(8 << 20) == busy("vda") and refused(4 << 20) == busy("vda")
        assert refused(8 << 20, node_name="#vda.1") == busy("#vda.1")
        c("block-job-cancel", device="vda")
        for size in [8 << 20, 9 << 20, 10 << 20]:
            # What was asked a moment ago is not believed any longer.
            os.stat("mnt/vda"); os.fstat(file)
            assert resize(size) == {"return": {}}
            assert os.stat("mnt/vda").st_size == size == os.fstat(file).st_size
            assert os.lseek(file, 0, os.SEEK_END) == size
            assert os.pread(file, 8192, size - 4096) == bytes(4096)
            assert os.pwrite(file, b"end", size - 3) == 3
            assert os.pread(file, 10, size - 4) == b"\\0end"
        assert c.hmp("block_resize vdb 5") == "" and os.stat("mnt/vdb").st_size == 5 << 20
        assert c("query-block")[0]["inserted"]["image"]["virtual-size"] == 10 << 20
        """)
      try box.run(
        """
        cmp <(head -c 2M mnt/vda) <(head -c 2M /dev/zero | tr '\\0' '\\1')
        chainfs unmount mnt; qemu-img check -q top.qcow2
        qemu-img info --output=json top.qcow2 | grep -q '"virtual-size": 10485760'
        """)
    }

    @Test(
      "a device that cannot be resized says why",
      arguments: [
        ("", "mount with -o growable"), (",growable,cache=writeback", "truncate -s SIZE"),
        (",growable,ro", "GenericError: Image is read-only"),
      ])
    func noResize(options: String, reason: String) throws {
      let box = try mounted(options)
      try box.python(
        """
        c = Client()
        said = c.fails("block_resize", device="vda", size=8 << 20)
        assert "\(reason)" in said, said
        assert os.stat("mnt/vda").st_size == 4 << 20
        """)
      try box.run("chainfs unmount mnt")
    }

    @Test("query-blockstats counts what the guest has asked of a device")
    func statistics() throws {
      let box = try mounted(",cache=none")
      try box.python(
        """
        c = Client()
        first, second = c("query-blockstats")
        assert first["device"] == "vda" and first["node-name"] == "#vda.1"
        assert all(not value or value is True for value in first["stats"].values())
        assert "idle_time_ns" not in first["stats"]
        file = os.open("mnt/vda", os.O_RDWR)
        for n in range(3): assert len(os.pread(file, 4096, n << 16)) == 4096
        assert os.pwrite(file, b"x" * 5000, 100) == 5000
        os.fsync(file); os.fsync(file)
        assert c("query-blockstats")[0]["stats"]["flush_operations"] == 2
        # This program flushes, too.
        assert os.system("fallocate -p -o 1M -l 64K mnt/vda") == 0
        assert os.system("fallocate -z -o 2M -l 128K mnt/vda") == 0
        stats = c("query-blockstats")[0]["stats"]
        told = {name: stats[name] for name in stats if name.endswith(("_operations", "_bytes"))}
        assert {name: value for name, value in told.items() if value} == {
            "rd_operations": 3, "rd_bytes": 3 * 4096, "wr_operations": 2,
            "wr_bytes": 5000 + (128 << 10), "unmap_operations": 1, "unmap_bytes": 64 << 10,
            "flush_operations": told["flush_operations"]}, told
        for kind in ["rd", "wr", "flush", "unmap"]: assert stats[f"{kind}_total_time_ns"] > 0
        assert stats["wr_highest_offset"] == (2 << 20) + (128 << 10)
        assert stats["idle_time_ns"] > 0
        # The file of the active image was written, behind its tables; what lies below was not.
        device = c("query-blockstats")[0]
        reach = device["parent"]["stats"]["wr_highest_offset"]
        assert 4 << 16 < reach <= os.path.getsize("top.qcow2"), reach
        base = device["backing"]
        assert base["node-name"] == "#vda.0" and "backing" not in base
        for part in [base["stats"], base["parent"]["stats"]]:
            assert part.keys() == device["parent"]["stats"].keys() and not any(part.values())
        # What a job and a snapshot do is not the guest's.
        c("block-stream", device="vda")
        while not any(e["event"] == "BLOCK_JOB_COMPLETED" for e in c.events):
            c.events.append(c.line())
        again = c("query-blockstats")[0]["stats"]
        assert {name: again[name] for name in told} == told
        nodes = c("query-blockstats", query_nodes=True)
        assert all(n["parent"]["stats"] and "backing" not in n for n in nodes)
        assert nodes[0]["parent"] == c("query-blockstats")[0]["parent"] != device["parent"]
        assert nodes[2]["parent"] == base["parent"]
        assert [n["node-name"] for n in nodes] == ["#vda.1", "#vdb.1", "#vdb.0"]
        assert nodes[0]["stats"]["wr_highest_offset"] == stats["wr_highest_offset"]
        assert second["stats"]["rd_operations"] == 0 == nodes[2]["stats"]["wr_highest_offset"]
        """)
      try box.run("chainfs unmount mnt; qemu-img check -q top.qcow2")
    }

    @Test(
      "the end of the mount is told before the connection goes",
      arguments: [
        (#"assert c("quit") == {}"#, "host-qmp-quit"),
        (#"assert not c.hmp("q")"#, "host-qmp-quit"),
        (
          #"os.kill(int(os.popen("chainfs status --pid mnt").read()), signal.SIGTERM)"#,
          "host-signal"
        ),
      ])
    func shutdown(command: String, reason: String) throws {
      let box = try mounted()
      try box.python(
        """
        import signal
        c, other = Client(), Client()
        assert c.hmp("q x").startswith("quit|q: extraneous characters")
        \(command)
        for client in [c, other]:
            try:
                while True: client.events.append(client.line())
            except (EOFError, ConnectionResetError): pass
            event, = client.events
            assert event["event"] == "SHUTDOWN"
            assert event["data"] == {"guest": False, "reason": "\(reason)"}, event
        """)
      try box.run(
        """
        until ! mountpoint -q mnt && [ ! -e s ]; do sleep 0.02; done
        until chainfs mount vda=top.qcow2 vdb=other.qcow2 mnt 2> said; do sleep 0.05; done
        chainfs unmount mnt; qemu-img check -q top.qcow2
        """)
    }

    @Test("info block tells of devices and nodes as QEMU does, and of headers as qemu-img does")
    func infoBlock() throws {
      let box = try Sandbox()
      try QMPClient.text.write(
        toFile: "\(box.path)/client.py", atomically: true, encoding: .utf8)
      try box.run(
        """
        qemu-img create -q -f raw base.raw 1500K
        qemu-img create -q -f qcow2 -o compat=0.10 -b base.raw -F raw old.qcow2
        qemu-img create -q -f qcow2 -o data_file=data.raw,data_file_raw=on,lazy_refcounts=on d.qcow2 3M
        qemu-img create -q -f qcow2 -o cluster_size=128K,extended_l2=on,compression_type=zstd \\
          -b $PWD/old.qcow2 -F qcow2 top.qcow2 100M
        qemu-img bitmap --add top.qcow2 bits
        # Dates are those of clocks on the wall.
        export TZ=HERE-9:30
        qemu-img snapshot -c 'first of two' old.qcow2; qemu-img snapshot -c 2 old.qcow2
        qemu-img snapshot -c $'a-name-that-is-longer-than-its-column-\\xc3\\xa4' top.qcow2
        chainfs mount -o qmp=s vda=top.qcow2 vdb=d.qcow2 mnt
        """)
      try box.python(
        """
        import re, subprocess
        os.environ["TZ"] = "HERE-9:30"
        c = Client()
        here = os.getcwd()
        def lines(*words): return "".join(word + "\\r\\n" for word in words)
        cache = "    Cache mode:       writeback"
        a = lines(f"vda (#vda.2): {here}/top.qcow2 (qcow2)", cache,
                  f"    Backing file:     {here}/old.qcow2 (chain depth: 2)")
        b = lines(f"vdb (#vdb.0): {here}/d.qcow2 (qcow2)", cache)
        old = lines(f"#vda.1: {here}/old.qcow2 (qcow2, read-only)", cache,
                    f"    Backing file:     {here}/base.raw (chain depth: 1)")
        raw = lines(f"#vda.0: {here}/base.raw (raw, read-only)", cache)
        blank = "\\r\\n"
        assert c.hmp("info block") == a + blank + b
        assert c.hmp("info block vda") == a
        # Whatever is not the first of its list has an empty line before it, in QEMU too.
        assert c.hmp("info block vdb") == blank + b
        assert c.hmp("info block #vda.1") == blank + old == c.hmp("info block -n #vda.1")
        assert c.hmp("info block -n vda") == "" == c.hmp("info block no")
        name = a.replace("vda (#vda.2)", "#vda.2")
        node = b.replace("vdb (#vdb.0)", "#vdb.0")
        assert c.hmp("info block -n") == blank.join([name, old, raw, node])
        def image(path, format):
            text = subprocess.check_output(
                ["qemu-img", "info", "-U", "-f", format, f"{here}/{path}"], text=True)
            # A newer one tells of the files below, too.
            return text.split("Child node")[0].replace("\\n", "\\r\\n")
        images = [image("top.qcow2", "qcow2"), image("old.qcow2", "qcow2"), image("base.raw", "raw")]
        assert "Snapshot list:" in images[0] and "first of two" in images[1]
        said = c.hmp("info block -v vda")
        assert said == a + blank + "Images:\\r\\n" + "".join(images), said
        said = c.hmp("info block -n -v #vda.1")
        assert said == blank + old + blank + "Images:\\r\\n" + "".join(images[1:]), said
        said = c.hmp("info block -v vdb")
        # QEMU counts the data file too, which qemu-img did not open.
        def sizeless(text): return re.sub("disk size: .*", "", text)
        assert sizeless(said) == sizeless(
            blank + b + blank + "Images:\\r\\n" + image("d.qcow2", "qcow2")), said
        assert open("mnt/.jobs/vda/info").read() == (
            a.replace(" (#vda.2)", "").replace("\\r", ""))
        """)
      try box.run("chainfs unmount mnt")
    }
  }
}
