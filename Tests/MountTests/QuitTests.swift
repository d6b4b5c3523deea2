import Foundation
import TestSupport
import Testing

extension MountTests {
  @Suite("The end of a mount by command and by signal", .serialized, .timeLimit(.minutes(5)))
  struct QuitTests {
    /// Leaves many dirty pages in the kernel and asks for the end twice.
    private static let script = """
      import os, signal, socket, sys
      device = os.open("mnt/vda", os.O_RDWR)
      for place in range(128): os.pwrite(device, b"\\7" * (1 << 20), place << 20)
      server = socket.socket(socket.AF_UNIX)
      server.connect("s")
      lines = server.makefile("rb")
      lines.readline()
      server.sendall(b'{"execute": "qmp_capabilities"}{"execute": "quit"}')
      replies = 0
      while replies < 2: replies += b"return" in lines.readline()
      if sys.argv[1] == "signal": os.kill(int(sys.argv[2]), signal.SIGTERM)
      else: server.sendall(b'{"execute": "quit"}')
      while lines.readline(): pass
      """

    @Test(
      "a quit that comes twice, and a signal after it, cost no page that is not written yet",
      arguments: ["quit", "signal"])
    func twice(second: String) throws {
      let box = try Sandbox()
      try Self.script.write(
        toFile: "\(box.path)/script.py", atomically: true, encoding: .utf8)
      try box.run(
        """
        qemu-img create -q -f qcow2 a.qcow2 128M
        chainfs mount -f -o cache=writeback,qmp=s vda=a.qcow2 mnt & server=$!
        until mountpoint -q mnt; do kill -0 $server; sleep 0.05; done
        timeout -s KILL 120 python3 script.py \(second) $server
        wait $server
        ! mountpoint -q mnt
        qemu-img check -q a.qcow2
        qemu-io -f qcow2 -r -c 'read -P 7 0 128M' a.qcow2 | tee said
        ! grep -q failed said
        """, seconds: 240)
    }
  }
}
