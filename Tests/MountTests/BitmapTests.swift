import TestSupport
import Testing

extension MountTests {
  @Suite("Persistent bitmaps of a mounted disk", .serialized, .timeLimit(.minutes(3)))
  struct BitmapTests {
    /// The dirty ranges of a bitmap as QEMU's own server tells them, in KiB: `start+length`, joined.
    private static let dirty = """
      dirty() { # IMAGE BITMAP
        # It ends with its client.
        qemu-nbd -f qcow2 -r -k $PWD/$2.sock -B $2 --fork $1 > /dev/null 2>&1
        qemu-img map --output=json --image-opts \\
          driver=nbd,server.type=unix,server.path=$PWD/$2.sock,x-dirty-bitmap=qemu:dirty-bitmap:$2 |
          python3 -c 'import json, sys
      spans = []
      for e in json.load(sys.stdin):
        if e["data"]: continue
        if spans and spans[-1][1] == e["start"]: spans[-1][1] += e["length"]
        else: spans.append([e["start"], e["start"] + e["length"]])
      print(" ".join(f"{a >> 10}+{b - a >> 10}" for a, b in spans))'
      }

      """

    private func makeChain() throws -> Sandbox {
      let box = try Sandbox()
      try box.run(
        """
        qemu-img create -q -f qcow2 base.qcow2 16M
        qemu-io -f qcow2 -c 'write -q -P 7 0 16M' base.qcow2
        qemu-img create -q -f qcow2 -b base.qcow2 -F qcow2 top.qcow2
        qemu-img bitmap --add --enable -g 64k top.qcow2 seen
        qemu-img bitmap --add --disable -g 64k top.qcow2 off
        """)
      return box
    }

    @Test("exactly what was written through the mount is dirty, and a stream dirties nothing")
    func exact() throws {
      let box = try makeChain()
      try box.run(
        """
        chainfs mount vda=top.qcow2 mnt
        printf x | dd of=mnt/vda bs=1 seek=70000 conv=notrunc 2>/dev/null
        dd if=/dev/urandom of=mnt/vda bs=64k seek=32 count=2 conv=notrunc,fsync 2>/dev/null
        fallocate -p -o 4M -l 64K mnt/vda
        fallocate -z -o 5M -l 100K mnt/vda
        chainfs stream --wait mnt/vda
        cp mnt/vda flat.raw
        chainfs unmount mnt
        qemu-img check -q top.qcow2
        qemu-img compare -q top.qcow2 flat.raw
        """)
      let found = try box.run(Self.dirty + "dirty top.qcow2 seen; dirty top.qcow2 off")
      #expect(found == "64+64 2048+128 4096+64 5120+128")
      #expect(try box.run("qemu-img info top.qcow2 | grep -c in-use || true") == "0")
    }

    @Test("a live snapshot leaves the bitmap true in the layer below, and info tells of it")
    func snapshot() throws {
      let box = try makeChain()
      try box.run(
        """
        chainfs mount vda=top.qcow2 mnt
        dd if=/dev/urandom of=mnt/vda bs=64k seek=3 count=1 conv=notrunc 2>/dev/null
        chainfs snapshot mnt/vda $PWD/new.qcow2
        dd if=/dev/urandom of=mnt/vda bs=64k seek=9 count=1 conv=notrunc 2>/dev/null
        chainfs unmount mnt
        qemu-img check -q top.qcow2
        """)
      #expect(try box.run(Self.dirty + "dirty top.qcow2 seen") == "192+64")
      let lists = try ["chainfs info --json", "qemu-img info --output=json"].map { command in
        try box.run(
          command + " top.qcow2 | python3 -c 'import json, sys; "
            + "print(json.load(sys.stdin)[\"format-specific\"][\"data\"][\"bitmaps\"])'")
      }
      #expect(lists[0] == lists[1])
    }

    @Test("after kill -9 the bitmap is called inconsistent, and stays so")
    func killed() throws {
      let box = try makeChain()
      try box.run(
        """
        chainfs mount vda=top.qcow2 mnt
        dd if=/dev/urandom of=mnt/vda bs=64k seek=3 count=1 conv=notrunc,fsync 2>/dev/null
        kill -9 $(chainfs status --pid mnt); umount -l mnt
        chainfs mount vda=top.qcow2 mnt
        dd if=/dev/urandom of=mnt/vda bs=64k seek=4 count=1 conv=notrunc,fsync 2>/dev/null
        chainfs unmount mnt
        qemu-img check -q top.qcow2
        """)
      #expect(try box.run("qemu-img info top.qcow2 | grep -c in-use || true") == "1")
    }
  }
}
