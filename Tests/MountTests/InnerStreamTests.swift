import Foundation
import TestSupport
import Testing

extension MountTests {
  /// Streams into layers below the active image, as iotest 030 has them, and what is beside them.
  @Suite("Streams into layers", .serialized, .timeLimit(.minutes(5)))
  struct InnerStreamTests {
    /// Nine layers `img0` to `img8`, each with a mebibyte of its own and parts of the others'; the node
    /// of `imgN` is `#vda.N`.
    private func chain(_ options: String = "") throws -> Sandbox {
      let box = try Sandbox()
      try QMPClient.text.write(toFile: "\(box.path)/client.py", atomically: true, encoding: .utf8)
      try box.run(
        """
        qemu-img create -q -f qcow2 img0 16M
        qemu-io -f qcow2 -c 'write -q -P 100 0 9M' img0
        for i in {1..8}; do
          qemu-img create -q -f qcow2 -b img$((i - 1)) -F qcow2 img$i
          qemu-io -f qcow2 -c "write -q -P $i ${i}M 1M" -c "write -q -P 2$i $((i * 65))k 190k" \
            -c "write -q -z $((i * 200 + 9000))k 100k" img$i
        done
        qemu-img convert -O raw img8 disk.raw
        for i in 3 4 5; do qemu-img convert -O raw img$i view$i; done
        chainfs mount -o qmp=s\(options) vda=img8 mnt
        """)
      return box
    }

    /// Unmounts and looks at what is left: the same disk, by sound images.
    private func finish(
      _ box: Sandbox, _ images: String, against disk: String = "disk.raw"
    ) throws {
      try box.run(
        """
        cmp mnt/vda \(disk)
        chainfs unmount mnt
        for image in \(images); do qemu-img check -q $image; done
        qemu-img compare -q img8 \(disk)
        [ -z "$(ls -A | grep chainfs-job)" ]
        """)
    }

    @Test("one into a layer in the middle: the layer gets it all, the active image nothing")
    func intermediate() throws {
      let box = try chain()
      try box.run("cksum img8 img7 img6 > sums; cat mnt/vda > /dev/null")
      try box.python(
        """
        c = Client()
        assert c.fails("block-stream", device="#vda.5") == "GenericError: Invalid job ID ''"
        assert c.fails("block-stream", device="#vda.5", job_id="j", base="img7") == (
            "GenericError: Can't find 'img7' in the backing chain")
        assert c.fails("block-stream", device="#vda.5", job_id="j", base_node="#vda.6") == (
            "GenericError: Node '#vda.6' is not a backing image of '#vda.5'")
        c("block-stream", device="#vda.5", job_id="j", base="img2")
        assert drain(c, "j") == {"j": None}
        c.until("null")
        assert c.words() == "created running waiting pending BLOCK_JOB_COMPLETED concluded null"
        assert chain(c) == ["img8", "img7", "img6", "img5", "img2", "img1", "img0"]
        # Again: there is nothing left to do.
        c.events = []
        c("block-stream", device="#vda.5", job_id="j", base="img2")
        assert drain(c, "j") == {"j": None}
        assert [e["data"]["len"] for e in c.events if "len" in e["data"]] == [0]
        # The lowest one has nothing below it.
        c("block-stream", device="#vda.0", job_id="low")
        assert drain(c, "low")["low"] is None
        """)
      try box.run(
        """
        qemu-io -f qcow2 -c 'write -q 0 1k' img4
        ! qemu-io -f qcow2 -c 'write -q 0 1k' img5 2> said; grep -q lock said
        cmp mnt/vda disk.raw; cmp mnt/.chain/vda/3-img5 view5
        """)
      try finish(box, "img8 img7 img6 img5 img2 img1 img0")
      try box.run(
        """
        cksum img8 img7 img6 | cmp - sums
        qemu-img info img5 | grep -q '^backing file: img2'
        qemu-img convert -O raw img5 now5; cmp now5 view5
        qemu-img map --output=json img5 > map
        """)
      // What img3, img4 and img5 had of their own.
      try box.python(
        """
        for run in json.load(open("map")):
            if run["start"] < 6 << 20 and run["start"] + run["length"] > 3 << 20:
                assert run["depth"] == 0, run
        """)
    }

    @Test("four at once in a chain of nine, each the base of the one above it", arguments: 0..<2)
    func parallel(round: Int) throws {
      let box = try chain(round == 0 ? "" : ",cache=none")
      try box.python(
        """
        c = Client()
        for n in [2, 4, 6]:
            c("block-stream", device=f"#vda.{n}", job_id=f"s{n}", bottom=f"#vda.{n - 1}", speed=1)
        c("block-stream", device="vda", job_id="s8", bottom="#vda.7", speed=1)
        assert [j["id"] for j in c("query-jobs")] == ["s8", "s6", "s4", "s2"]
        assert [j["device"] for j in c("query-block-jobs")] == ["s8", "s6", "s4", "s2"]
        lines = open("mnt/.jobs/status").read().splitlines()
        assert [line.split()[2] for line in lines] == ["s8:", "s6:", "s4:", "s2:"], lines
        assert c.hmp("info block-jobs").count("Streaming device") == 4
        with open("mnt/vda", "r+b", buffering=0) as file:
            file.seek(5 << 20); file.write(b"x" * 5000)
        for n in [2, 4, 6, 8]: c("block-job-set-speed", device=f"s{n}", speed=0)
        assert drain(c, "s2", "s4", "s6", "s8") == dict.fromkeys(["s2", "s4", "s6", "s8"])
        assert chain(c) == ["img8", "img6", "img4", "img2", "img0"]
        """)
      try box.run(
        """
        head -c 5000 /dev/zero | tr '\\0' x |
          dd of=disk.raw bs=5000 oflag=seek_bytes seek=5M conv=notrunc iflag=fullblock status=none
        """)
      try finish(box, "img8 img6 img4 img2 img0")
    }

    @Test("those that need a layer of another one are refused by QEMU's words, and change nothing")
    func overlapping() throws {
      let box = try chain()
      try box.python(
        """
        c = Client()
        def busy(node): return (f"GenericError: Node '{node}' is busy: block device is in use "
                                "by block job: stream")
        c("block-stream", device="#vda.4", job_id="s4", base="img2", speed=1)
        c.until("running")
        before = list(c.events)
        def writable(): return [n["node-name"] for n in c("query-named-block-nodes") if not n["ro"]]
        assert writable() == ["#vda.8", "#vda.4"]
        assert "img4 (qcow2)" in c.hmp("info block -n #vda.4")
        assert "img5 (qcow2, read-only)" in c.hmp("info block -n #vda.5")
        for device, base, node in [("#vda.5", "img2", "#vda.4"), ("#vda.3", "img2", "#vda.3"),
                                   ("#vda.4", "img2", "#vda.4"), ("vda", "img2", "#vda.4"),
                                   ("#vda.6", "img3", "#vda.4"), ("#vda.4", "img0", "#vda.4")]:
            assert c.fails("block-stream", device=device, job_id="x", base=base) == busy(node)
        assert c.hmp("block_stream vda 1") == "Error: " + busy("#vda.4")[14:] + "\\r\\n"
        assert c.events == before
        # A snapshot gives a node a name, which HMP takes for its job.
        path = os.path.abspath("sn")
        c("blockdev-snapshot-sync", device="vda", snapshot_file=path, snapshot_node_name="sn")
        path = os.path.abspath("sn2")
        c("blockdev-snapshot-sync", device="vda", snapshot_file=path, snapshot_node_name="sn2")
        assert c.hmp("block_stream sn 1B img4") == ""
        assert c("query-jobs")[0]["id"] == "sn"
        assert c.fails("block-stream", device="vda", base="img5") == busy("sn")
        assert c.hmp("block_job_cancel sn") == "" and c.hmp("block_job_set_speed s4 100") == ""
        assert drain(c, "s4")["s4"] is None
        assert writable() == ["sn2"]
        assert chain(c) == ["sn2", "sn", "img8", "img7", "img6", "img5", "img4", "img2", "img1",
                            "img0"]
        """)
      try box.run("chainfs unmount mnt; qemu-img compare -q sn2 disk.raw")
    }

    @Test("guests write, and views of layers that go are read, while it runs")
    func beside() throws {
      let box = try chain()
      try box.python(
        """
        import random, threading
        c = Client()
        model = bytearray(open("disk.raw", "rb").read())
        views = [(open(f"mnt/.chain/vda/{8 - n}-img{n}", "rb", buffering=0),
                  open(f"view{n}", "rb").read()) for n in [3, 4, 5]]
        c("block-stream", device="#vda.5", job_id="j", speed=1)
        def same(view):
            view[0].seek(0)
            return b"".join(iter(lambda: view[0].read(1 << 20), b"")) == view[1]
        r = random.Random(7)
        with open("mnt/vda", "r+b", buffering=0) as disk:
            for n in range(300):
                if n == 100: c("block-job-set-speed", device="j", speed=4 << 20)
                if n == 200: c("block-job-set-speed", device="j", speed=0)
                place, data = r.randrange(15 << 20), r.randbytes(r.choice([1, 512, 4096, 70000]))
                disk.seek(place); assert disk.write(data) == len(data)
                model[place:place + len(data)] = data
                if n % 20 == 0: assert same(views[n // 20 % 3]), n
            os.fsync(disk.fileno())
        assert drain(c, "j") == {"j": None}
        assert chain(c) == ["img8", "img7", "img6", "img5"]
        # The files are gone from the chain, and stay for whoever reads them.
        for view in views: assert same(view)
        for view in views: view[0].close()
        open("model", "wb").write(model)
        """)
      try box.run("qemu-io -f qcow2 -c 'write -q 0 1k' img4")
      try finish(box, "img8 img7 img6 img5", against: "model")
    }

    @Test(
      "it goes on at the next mount, wherever this one ends, and not with noresume",
      arguments: ["kill -9", "kill", "unmount"])
    func resumes(end: String) throws {
      let box = try chain()
      try box.python(
        """
        c = Client()
        for n in [6, 3]:
            c("block-stream", device=f"#vda.{n}", job_id=f"s{n}", base=f"img{n - 2}", speed=100000)
        # Some of it is durable.
        while not all(j["current-progress"] > 15500000 for j in c("query-jobs")): time.sleep(0.02)
        """)
      if end == "unmount" {
        try box.run("chainfs unmount mnt")
      } else {
        try box.run(
          """
          pid=$(chainfs status --pid mnt); \(end) $pid
          until [ ! -d /proc/$pid ] || grep -q "^State:.Z" /proc/$pid/status; do sleep 0.02; done
          ! mountpoint -q mnt || umount -l mnt
          """)
      }
      try box.run(
        """
        [ -e .img6.chainfs-job ]; [ -e .img3.chainfs-job ]
        qemu-img compare -q img8 disk.raw
        chainfs mount -o qmp=s,noresume vda=img8 mnt
        """)
      try box.python("assert Client()('query-jobs') == []")
      try box.run("chainfs unmount mnt; chainfs mount -o qmp=s vda=img8 mnt")
      try box.python(
        """
        c = Client()
        assert sorted(j["id"] for j in c("query-jobs")) == ["s3", "s6"]
        assert all(j["speed"] == 100000 for j in c("query-block-jobs"))
        for n in [6, 3]: c("block-job-set-speed", device=f"s{n}", speed=0)
        assert drain(c, "s3", "s6") == {"s3": None, "s6": None}
        assert chain(c) == ["img8", "img7", "img6", "img4", "img3", "img1", "img0"]
        """)
      try box.run("[ ! -s mnt/.jobs/vda/error ]")
      try finish(box, "img8 img7 img6 img4 img3 img1 img0")
    }
  }
}
