import TestSupport
import Testing

extension MountTests {
  @Suite("The view of a disk that grows", .serialized, .timeLimit(.minutes(5)))
  struct GrownViewTests {
    @Test(
      "it has the disk's size whenever it is looked at",
      arguments: ["none", "readback", "writeback"])
    func size(cache: String) throws {
      let box = try Sandbox()
      try box.run(
        """
        qemu-img create -q -f qcow2 a.qcow2 1M
        chainfs mount -o growable,cache=\(cache) vda=a.qcow2 mnt
        view=mnt/.chain/vda/0-a.qcow2
        for size in 1M 2M 3M 1T 3T; do
          truncate -s $size mnt/vda
          [ $(stat -c %s mnt/vda) = $(numfmt --from=iec $size) ]
          [ $(stat -c %s $view) = $(stat -c %s mnt/vda) ]
          [ $(ls -i mnt/.chain/vda | cut -d ' ' -f 1) = $(stat -c %i $view) ]
          # From the end, as programs look for the size of a disk.
          [ $(tail -c 4096 $view | wc -c) = 4096 ]
          qemu-img info --output=json -f raw $view > told
          grep -q 'virtual-size.: '$(stat -c %s mnt/vda)',' told
        done
        chainfs unmount mnt
        """)
    }
  }
}
