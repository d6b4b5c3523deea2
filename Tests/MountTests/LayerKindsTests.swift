import Foundation
import TestSupport
import Testing

extension MountTests {
  @Suite("Kinds of layers that are streamed into", .serialized, .timeLimit(.minutes(2)))
  struct LayerKindsTests {
    @Test("a layer that somebody reads, that is encrypted, or has its data in a file of its own")
    func kinds() throws {
      let box = try Sandbox()
      try QMPClient.text.write(toFile: "\(box.path)/client.py", atomically: true, encoding: .utf8)
      try box.run(
        """
        printf abc > secret
        again qemu-img create -q -f qcow2 --object secret,id=s,data=abc \
          -o encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10 low 4M
        again qemu-img create -q -f qcow2 --object secret,id=s,data=abc -b low -F qcow2 \
          -o encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10 mid
        qemu-img create -q -f qcow2 -o data_file=own.data -b mid -F qcow2 own
        qemu-img create -q -f qcow2 -b own -F qcow2 top
        chainfs mount -o secret=secret vda=mid mnt
        head -c 2M /dev/zero | tr '\\0' a | dd of=mnt/vda bs=1M conv=notrunc status=none
        chainfs unmount mnt
        chainfs mount -o qmp=s,secret=secret vda=top mnt
        cp mnt/vda disk.raw
        """)
      try box.python(
        """
        c = Client()
        for n in [1, 2]:
            c("block-stream", device=f"#vda.{n}", job_id=f"s{n}")
            assert drain(c, f"s{n}")[f"s{n}"] is None
        assert chain(c) == ["top", "own"]
        """)
      try box.run(
        """
        cmp mnt/vda disk.raw; chainfs unmount mnt
        qemu-img check -q own; qemu-img compare -q top disk.raw
        qemu-img create -q -f qcow2 -b own -F qcow2 other
        mkdir second; chainfs mount -o ro vda=other second
        chainfs mount -o qmp=s vda=top mnt
        """)
      let said = try box.python(
        "print(Client().fails('block-stream', device='#vda.0', job_id='j'))")
      #expect(said.contains("lock") && said.contains("chainfs"), "\(said)")
      try box.run(
        """
        cmp mnt/vda disk.raw; cmp second/vda disk.raw
        chainfs unmount mnt; chainfs unmount second
        """)
    }
  }
}
