import TestSupport
import Testing

// Errors that are real and can be healed.
//
// The base is a file of nbdfuse, behind which nbdkit reads another file by a script. While there is a
// file `broken`, reads of its third MiB fail with the error that is written in it.
//
// A limit of 50 MiB a second makes the pieces of a stream one MiB each, so that what was read before the
// broken range is counted, and nothing of the range itself.

extension MountTests.StreamScenarioTests {
  /// The chain over a base that can be broken.
  private func breakable() throws -> ScenarioChain {
    try ScenarioChain(
      """
      sectors 4 > whole; mkdir host; : > host/base.raw
      cat > pread <<'END'
      if [ -e broken ] && [ $4 -lt 3145728 ] && [ $(($4 + $3)) -gt 2097152 ]; then
        cat broken >&2; exit 1
      fi
      dd if=whole iflag=skip_bytes,count_bytes skip=$4 count=$3 bs=64k status=none
      END
      nbdfuse -r host/base.raw [ nbdkit --exit-with-parent -f -r eval \\
        get_size="echo 4M" pread="cd $PWD; . ./pread" ] > host.log 2>&1 < /dev/null &
      echo $! > server
      until [ -s host/base.raw ]; do kill -0 $!; sleep 0.01; done
      overlay mid.qcow2 host/base.raw; fill mid.qcow2 1 1M 512
      overlay top.qcow2 mid.qcow2
      """)
  }

  private static let tools = ToolAvailability.has(["nbdkit", "nbdfuse"])
  private static let speed = 50 << 20
  private static let serverEnds = """
    umount -i host/base.raw; server=$(cat server)
    until [ ! -d /proc/$server ] || grep -q '^State:.Z' /proc/$server/status; do sleep 0.01; done
    """

  @Test(
    "an error ends the job that reports it, and the image stays on its chain",
    .enabled(if: tools), arguments: ["report", "enospc", "auto"])
  func errorIsReported(policy: String) throws {
    let chain = try breakable()
    try chain.python(
      """
      c = Client()
      open("broken", "w").write("EIO broken")
      starts(c, speed=\(Self.speed), on_error="\(policy)")
      c.until("null")
      data, = [e["data"] for e in c.events if e["event"] == "BLOCK_JOB_COMPLETED"]
      assert 2 * MIB <= data["offset"] <= 3 * MIB, data
      error = ends(c, FAILED, offset=data["offset"], speed=\(Self.speed))
      assert error.endswith("Input/output error"), error
      data, = [e["data"] for e in c.events if e["event"] == "BLOCK_JOB_ERROR"]
      assert data == {"device": "vda", "operation": "read", "action": "report"}, data
      assert len(nodes(c)) == 3
      os.remove("broken")
      """)
    try chain.run("cmp mnt/vda expected; ends mid.qcow2; \(Self.serverEnds)")
  }

  @Test(
    "an error that is ignored is told, and the job fails with it at the end", .enabled(if: tools))
  func errorIsIgnored() throws {
    let chain = try breakable()
    try chain.python(
      """
      c = Client()
      open("broken", "w").write("EIO broken")
      starts(c, speed=\(Self.speed), on_error="ignore")
      c.until("BLOCK_JOB_ERROR")
      for job in c("query-block-jobs"): assert not job["paused"] and job["device"] == "vda", job
      error = ends(c, FAILED, speed=\(Self.speed))
      assert error.endswith("Input/output error"), error
      data, = [e["data"] for e in c.events if e["event"] == "BLOCK_JOB_ERROR"]
      assert data == {"device": "vda", "operation": "read", "action": "ignore"}, data
      assert len(nodes(c)) == 3
      os.remove("broken")
      # What could not be read is all that is left to do.
      starts(c)
      assert ends(c, DONE) is None
      """)
    try chain.run("cmp mnt/vda expected; ends ''; \(Self.serverEnds)")
  }

  @Test(
    "an error stops the job until it is healed, again and again",
    .enabled(if: tools), arguments: ["stop EIO", "stop ENOSPC", "enospc ENOSPC"])
  func errorStops(policyAndError: String) throws {
    let words = policyAndError.split(separator: " ")
    let (policy, error) = (words[0], words[1])
    let status = error == "EIO" ? "failed" : "nospace"
    let chain = try breakable()
    try chain.python(
      """
      c = Client()
      open("broken", "w").write("\(error) broken")
      starts(c, speed=\(Self.speed), on_error="\(policy)")
      for n in [1, 2]:
          c.until("paused")
          job = waits(c, paused=True, busy=False)
          assert job["status"] == "paused" and job["io-status"] == "\(status)", job
          assert 2 * MIB <= job["offset"] <= 3 * MIB, job
          data = [e["data"] for e in c.events if e["event"] == "BLOCK_JOB_ERROR"]
          assert data == [{"device": "vda", "operation": "read", "action": "stop"}], data
          with open("mnt/vda", "rb") as disk, open("expected", "rb") as expected:
              assert disk.read(2 * MIB) == expected.read(2 * MIB)
          if n == 1:
              # Not healed: it stops where it stood.
              assert c.words() == "created running BLOCK_JOB_ERROR paused", c.words()
              c.events = []
              c("job-resume", id="vda")
          else: assert c.words() == "running BLOCK_JOB_ERROR paused", c.words()
      os.remove("broken")
      c.events = []
      c("block-job-resume", device="vda")
      for job in c("query-block-jobs"): assert not job["paused"] and job["io-status"] == "ok", job
      words = DONE.replace("created ", "")
      assert ends(c, words, speed=\(Self.speed)) is None
      """)
    try chain.run("cmp mnt/vda expected; ends ''; \(Self.serverEnds)")
  }

  /// The top on a file system of 24 MiB; `fill` leaves a MiB of it, and the stream needs four.
  private func crowded() throws -> ScenarioChain {
    let chain = try ScenarioChain(
      """
      mkdir host; mount -t tmpfs -o size=24M full host; ln -s host/top.qcow2 top.qcow2
      sectors 4 > base.raw
      overlay mid.qcow2 base.raw; fill mid.qcow2 1 2M 512
      overlay host/top.qcow2 $PWD/mid.qcow2
      """)
    return chain
  }

  private static let fill = """
    def fill():
        with open("host/filler", "wb", buffering=0) as file:
            try:
                while True: file.write(bytes(65536))
            except OSError: pass
            file.truncate(os.path.getsize("host/filler") - MIB)
    """

  @Test("a full disk stops a job that says enospc, and it goes on once there is room")
  func noSpaceStops() throws {
    let chain = try crowded()
    try chain.python(
      """
      \(Self.fill)
      c = Client()
      starts(c, speed=1, on_error="enospc")
      fill()
      c("block-job-set-speed", device="vda", speed=\(Self.speed))
      c.until("paused")
      job = waits(c, paused=True, busy=False)
      assert job["status"] == "paused" and job["io-status"] == "nospace", job
      assert job["offset"] < 4 * MIB, job
      data, = [e["data"] for e in c.events if e["event"] == "BLOCK_JOB_ERROR"]
      assert data["action"] == "stop", data
      assert c.words() == "created running BLOCK_JOB_ERROR paused", c.words()
      os.remove("host/filler")
      c.events = []
      c("block-job-resume", device="vda")
      assert ends(c, DONE.replace("created ", ""), speed=\(Self.speed)) is None
      """)
    try chain.run("cmp mnt/vda expected; ends ''")
  }

  @Test("a full disk ends a job that says report, and the next one does the rest")
  func noSpaceIsReported() throws {
    let chain = try crowded()
    try chain.python(
      """
      \(Self.fill)
      c = Client()
      starts(c, speed=1)
      fill()
      c("block-job-set-speed", device="vda", speed=\(Self.speed))
      c.until("null")
      data, = [e["data"] for e in c.events if e["event"] == "BLOCK_JOB_COMPLETED"]
      assert data["offset"] < 4 * MIB, data
      error = ends(c, FAILED, offset=data["offset"], speed=\(Self.speed))
      assert error.endswith("No space left on device"), error
      # One that cannot fit is not begun.
      assert "streaming needs" in c.fails("block-stream", device="vda")
      os.remove("host/filler")
      starts(c)
      assert ends(c, DONE) is None
      """)
    try chain.run("cmp mnt/vda expected; ends ''")
  }
}
