import Foundation
import TestSupport

// The chain of QEMU's own streaming tests (iotest 030) on a mount with a socket, and what their scripts
// need: a client, the wait for the end of a job with its events, and the images afterwards.
//
//     base.raw     4 MiB, every sector holds its number
//     mid.qcow2    1 cluster of its own, at 2 MiB
//     top.qcow2    nothing yet; it is what is mounted
//
// `expected` is the disk as the chain has to show it from first to last.

/// A mounted chain whose streams are told over QMP.
struct ScenarioChain {
  let box: Sandbox

  /// What the Python of a scenario begins with.
  private static let preamble = """
    from client import *
    import signal, subprocess
    MIB = 1 << 20
    DONE = "created running waiting pending BLOCK_JOB_COMPLETED concluded null"
    FAILED = "created running BLOCK_JOB_ERROR aborting BLOCK_JOB_COMPLETED concluded null"
    CANCELLED = "created running aborting BLOCK_JOB_CANCELLED concluded null"
    def jobs(c):
        # Both queries tell of the same jobs.
        entries, brief = c("query-block-jobs"), c("query-jobs")
        assert [e["device"] for e in entries] == [b["id"] for b in brief], (entries, brief)
        return entries
    def waits(c, **wanted):
        # Until the job shows these fields; gives all of them.
        limit = time.time() + 50
        while True:
            job, = c("query-block-jobs")
            if all(job[name.replace("_", "-")] == value for name, value in wanted.items()):
                return job
            assert time.time() < limit, job
    def starts(c, device="vda", **arguments):
        assert jobs(c) == []
        c.events = []
        c("block-stream", device=device, **arguments)
    def ends(c, words, name="BLOCK_JOB_COMPLETED", **numbers):
        # All events of the job in their order, and each field of the one that tells of the end; gives
        # its error.
        c.until("null")
        assert c.words() == words, c.events
        data, = [e["data"] for e in c.events if e["event"] == name]
        error = data.pop("error", None)
        assert data == {"device": "vda", "type": "stream", "len": 4 * MIB, "offset": 4 * MIB,
                        "speed": 0} | numbers, data
        assert jobs(c) == []
        return error
    def nodes(c): return [n["node-name"] for n in c("query-named-block-nodes", flat=True)]
    """

  /// What the shell of a scenario begins with.
  private static let functions = """
    map() { qemu-io -r -f ${1#*.} -c map $1; }
    backing() { qemu-img info -U $1 | sed -n 's/^backing file: \\([^ ]*\\).*/\\1/p'; }
    ends() {  # The new backing file of top.qcow2.
      chainfs unmount mnt
      qemu-img check -q top.qcow2
      [ "$(backing top.qcow2)" = "$1" ]
      qemu-img compare -q -f raw -F qcow2 expected top.qcow2
    }
    """

  /// Makes the chain, or another one by a script that leaves base.raw, mid.qcow2 and top.qcow2, and
  /// mounts it.
  init(_ script: String = Self.usual, options: String = "") throws {
    box = try Sandbox()
    for (name, text) in [("client.py", QMPClient.text), ("scenario.py", Self.preamble)] {
      try text.write(toFile: "\(box.path)/\(name)", atomically: true, encoding: .utf8)
    }
    try run(
      """
      sectors() { python3 -c "import sys
      for n in range($1 * 2048): sys.stdout.buffer.write(n.to_bytes(4, 'big') * 128)"; }
      overlay() { qemu-img create -q -f qcow2 -b $2 -F ${2#*.} $1 $3; }
      fill() { qemu-io -f qcow2 -c "write -q -P $2 $3 $4" $1; }
      \(script)
      qemu-img convert -f qcow2 -O raw top.qcow2 expected
      """)
    try mount(options)
  }

  func mount(_ options: String = "") throws {
    try run("chainfs mount -o qmp=s,log=$PWD/log\(options) vda=top.qcow2 mnt")
  }

  static let usual = """
    sectors 4 > base.raw
    overlay mid.qcow2 base.raw; fill mid.qcow2 1 2M 512
    overlay top.qcow2 mid.qcow2
    """

  @discardableResult
  func run(_ script: String) throws -> String {
    try box.run("\(Self.functions)\n\(script)")
  }

  func python(_ script: String, seconds: Int = 120) throws {
    try box.python(script, from: "scenario", seconds: Double(seconds))
  }
}
