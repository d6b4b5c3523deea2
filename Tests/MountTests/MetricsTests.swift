import Foundation
import TestSupport
import Testing

extension MountTests {
  @Suite("Metrics", .serialized, .timeLimit(.minutes(5)))
  struct MetricsTests {
    /// A reader of the format that forgives nothing: `numbers()` are the values by name and labels.
    private static let reader = """
      import re
      from client import *
      from decimal import Decimal
      def numbers():
          text = open("mnt/.jobs/metrics", encoding="utf-8", newline="").read()
          assert text.endswith("\\n")
          kinds, values, family = {}, {}, None
          for line in text[:-1].split("\\n"):
              if line.startswith("# HELP "):
                  family, = re.fullmatch("# HELP (chainfs_[a-z_]+) [^\\\\\\\\]+", line).groups()
                  assert family not in kinds, line
                  kinds[family] = None
              elif line.startswith("# TYPE "):
                  name, kind = re.fullmatch("# TYPE ([a-z_]+) (counter|gauge)", line).groups()
                  assert name == family and kinds[name] is None, line
                  assert (kind == "counter") == name.endswith("_total"), line
                  kinds[name] = kind
              else:
                  name, labels, value = re.fullmatch(
                      r"([a-z_]+)(?:\\{(.+)\\})? ([0-9]+(?:\\.[0-9]+)?)", line).groups()
                  assert name == family and kinds[name], line
                  pairs = re.findall(r'([a-z_]+)="((?:[^"\\\\]|\\\\["\\\\n])*)"', labels or "")
                  assert ",".join(f'{n}="{v}"' for n, v in pairs) == (labels or ""), line
                  assert len(dict(pairs)) == len(pairs), line
                  key = name.removeprefix("chainfs_"), *sorted(dict(pairs).items())
                  assert key not in values, line
                  values[key] = Decimal(value)
          assert {"chainfs_" + key[0] for key in values} == set(kinds)
          return values
      def key(name, **labels): return (name, *sorted(labels.items()))
      """

    private func sandbox() throws -> Sandbox {
      let box = try Sandbox()
      for (name, text) in [("client", QMPClient.text), ("metrics", Self.reader)] {
        try text.write(toFile: "\(box.path)/\(name).py", atomically: true, encoding: .utf8)
      }
      return box
    }

    /// Two devices over a base of 64 MiB of data, `vda` with a layer between; with a socket.
    private func mounted(_ options: String) throws -> Sandbox {
      let box = try sandbox()
      try box.run(
        """
        qemu-img create -q -f qcow2 base 64M; qemu-io -f qcow2 -c 'write -q -P 1 0 64M' base
        qemu-img create -q -f qcow2 -b base -F qcow2 mid
        qemu-img create -q -f qcow2 -b mid -F qcow2 top
        qemu-img create -q -f qcow2 -b base -F qcow2 other
        chainfs mount -o qmp=s\(options) vda=top vdb=other mnt
        """)
      return box
    }

    private func python(_ box: Sandbox, _ script: String) throws {
      try box.python("from metrics import *\n" + script)
    }

    @Test("counters grow by what was asked of a device, and by nothing else")
    func requests() throws {
      let box = try mounted(",cache=none")
      #expect(try box.run("stat -c '%a %F' mnt/.jobs/metrics") == "400 regular empty file")
      try python(
        box,
        """
        def dd(words): assert os.system("dd bs=64K count=16 status=none " + words) == 0
        def requests(values):
            return {k: v for k, v in values.items() if v and k[0].startswith("device_")
                    and k[0].endswith(("operations_total", "bytes_total"))}
        def both(operation, count, size): return {
            key("device_operations_total", device="vda", operation=operation): count,
            key("device_bytes_total", device="vda", operation=operation): count * size}
        before = numbers()
        assert requests(before) == {}
        assert before[key("device_size_bytes", device="vda")] == 64 << 20
        assert before[key("device_layers", device="vda")] == 3
        assert before[key("device_layers", device="vdb")] == 2
        for part in ["active", "backing"]:
            assert before[key("device_allocated_bytes", device="vda", part=part)] > 0
        assert not any(k[0].startswith(("job_", "device_latency")) for k in before)

        dd("if=/dev/zero of=mnt/vda oflag=direct conv=notrunc")
        dd("if=mnt/vda of=/dev/null iflag=direct skip=16")
        assert os.system("fallocate -p -o 8M -l 64K mnt/vda") == 0
        file = os.open("mnt/vda", os.O_RDWR)
        for n in range(3): os.fsync(file)
        after = numbers()
        flushes = key("device_operations_total", device="vda", operation="flush")
        # Those who close a file make its bytes durable too.
        assert after[flushes] >= 3
        assert requests(after) == {
            **both("write", 16, 64 << 10), **both("read", 16, 64 << 10),
            **both("unmap", 1, 64 << 10), flushes: after[flushes]}, after
        for operation in ["read", "write", "flush", "unmap"]:
            assert after[key("device_operation_seconds_total", device="vda",
                             operation=operation)] > 0
        assert after[key("device_latency_seconds", device="vda")] > 0
        assert after[key("device_requests_in_flight", device="vda")] == 0

        # The map is made by pieces of 32 MiB.
        misses = key("cache_misses_total", device="vda", cache="map")
        assert after[misses] == 1
        assert len(os.pread(file, 4096, 60 << 20)) == len(os.pread(file, 4096, 50 << 20)) == 4096
        last = numbers()
        assert last[misses] == 2
        assert 0 < last[key("cache_bytes", device="vda", cache="map")] <= last[
            key("cache_limit_bytes", device="vda", cache="map")]
        reads = key("device_operations_total", device="vda", operation="read")
        assert last[reads] - after[reads] == 2
        os.close(file)
        """)
      try box.run("chainfs unmount mnt; qemu-img check -q top")
    }

    @Test("jobs are there while they are listed, with the numbers that other files tell")
    func jobs() throws {
      let box = try mounted("")
      try python(
        box,
        """
        def write(name, text=""): open("mnt/.jobs/" + name, "w").write(text + "\\n")
        def value(name, **labels): return numbers().get(key(name, **labels))
        assert value("device_held", device="vda") == 0
        write("vda/stop")
        assert value("device_held", device="vda") == 1 and value("device_held", device="vdb") == 0
        write("vda/cont")
        assert value("device_held", device="vda") == 0
        write("speed", "900")
        assert value("shared_speed_limit_bytes_per_second") == 900
        write("speed", "0")

        # Into the layer between, and into the active image of the other device.
        c = Client()
        c("block-stream", device="#vda.1", job_id="lower", speed=1)
        write("vdb/stream", "speed=1 id=mine auto-dismiss=no")
        c("block-job-pause", device="lower"); write("vdb/pause")
        while any(job["busy"] for job in c("query-block-jobs")): time.sleep(0.01)
        values = numbers()
        jobs = {job["device"]: job for job in c("query-block-jobs")}
        about = json.load(open("mnt/.jobs/vdb/status.json"))["job"]
        for device, id in [("vda", "lower"), ("vdb", "mine")]:
            labels = {"device": device, "id": id, "type": "stream"}
            assert values[key("job_info", status="paused", state="paused", io_status="ok",
                              **labels)] == 1
            assert values[key("job_length_bytes", **labels)] == jobs[id]["len"] == 64 << 20
            assert values[key("job_offset_bytes", **labels)] == jobs[id]["offset"]
            assert values[key("job_speed_limit_bytes_per_second", **labels)] == 1
            if device == "vda": continue
            for name in ["copied", "zero", "skipped"]:
                assert values[key(f"job_{name}_bytes", **labels)] == about[name], (name, about)
            assert key("job_durable_bytes", **labels) in values
        assert values[key("events_total")] >= 6 and values[key("events_lost_total")] == 0

        c("block-job-cancel", device="lower", force=True); write("vdb/cancel")
        told = [dict(k[1:]) for k in numbers() if k[0] == "job_info"]
        assert [(t["id"], t["status"], t["state"]) for t in told] == [
            ("mine", "concluded", "cancelled")], told
        write("vdb/dismiss")
        assert not any(k[0].startswith("job_") for k in numbers())
        """)
      try box.run("chainfs unmount mnt; for i in top mid other; do qemu-img check -q $i; done")
    }

    @Test("a failed read is counted as one, and a read-only device is told as such")
    func failures() throws {
      let box = try sandbox()
      try box.run(
        """
        qemu-img create -q -f qcow2 top 4M; qemu-io -f qcow2 -c 'write -q -P 1 0 4M' top
        python3 - <<'END'
        with open("top", "r+b") as file:
            def number(place):
                file.seek(place)
                return int.from_bytes(file.read(8), "big") & ~(0xff << 56)
            # The second cluster lies where none begins, which no image may say.
            entry = number(number(40)) + 8
            place = number(entry)
            file.seek(entry)
            file.write((place + 512 | 1 << 63).to_bytes(8, "big"))
        END
        chainfs mount -o ro,cache=none vda=top mnt
        """)
      try python(
        box,
        """
        def value(name, **labels): return numbers()[key(name, device="vda", **labels)]
        assert value("device_read_only") == 1
        file = os.open("mnt/vda", os.O_RDONLY)
        assert len(os.pread(file, 4096, 0)) == 4096
        for n in range(2):
            try: raise AssertionError(len(os.pread(file, 4096, 65536)))
            except OSError: pass
        assert value("device_operations_total", operation="read") == 1
        assert value("device_bytes_total", operation="read") == 4096
        assert value("device_failed_operations_total", operation="read") == 2
        """)
      try box.run("chainfs unmount mnt")
    }
  }
}
