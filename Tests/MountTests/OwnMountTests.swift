import TestSupport
import Testing

extension MountTests {
  @Suite("Images on the mount that shows them", .serialized, .timeLimit(.minutes(4)))
  struct OwnMountTests {
    private func mounted() throws -> Sandbox {
      let box = try Sandbox()
      try box.run(
        """
        for name in a b; do
          qemu-img create -q -f qcow2 $name-base.qcow2 64M
          qemu-img create -q -f qcow2 -b $name-base.qcow2 -F qcow2 $name.qcow2
        done
        chainfs mount -o threads=4 vda=a.qcow2 vdb=b.qcow2 mnt
        """)
      return box
    }

    /// `refused FILE COMMAND WORDS`: the command is refused in time, and vda's sentence has these words.
    private let functions = """
      refused() {
        rc=0; timeout -k 1 60 sh -c "echo '$2' > mnt/.jobs/$1" 2> /dev/null || rc=$?
        [ $rc = 1 ] || { echo "$1 $2: $rc" >&2; return 1; }
        grep -qF "$3" mnt/.jobs/vda/error || { cat mnt/.jobs/vda/error >&2; return 1; }
      }

      """

    // Attributes that the kernel believes would hide who is asked; a write makes it forget them.
    @Test("a name that leads to the device itself is refused, and nobody waits for its answer")
    func names() throws {
      let box = try mounted()
      try box.run(
        functions + """
          ln -s $PWD/mnt/vda link
          qemu-img create -q -f qcow2 -b $PWD/mnt/vda -F raw direct 64M
          qemu-img create -q -f qcow2 -b $PWD/link -F raw linked 64M
          forgotten() { dd status=none if=/dev/zero of=mnt/vda bs=512 count=1 conv=notrunc; }
          own='a file of this very mount'
          forgotten; refused vda/snapshot "$PWD/direct mode=existing" "$own"
          forgotten; refused vda/snapshot "$PWD/linked mode=existing" 'link is not'
          forgotten; refused vda/snapshot "$PWD/mnt/vdb mode=existing" "$own"
          forgotten; refused vda/snapshot "$PWD/mnt/../mnt/vda mode=existing" "$own"
          forgotten; refused vda/snapshot "$PWD/link mode=existing" "$own"
          refused vda/snapshot "$PWD/mnt/new" "$own"
          refused snapshot "vda=$PWD/mnt/new vdb=$PWD/new" "$own"
          echo $PWD/top > mnt/.jobs/vda/snapshot
          forgotten; refused vda/stream "base=$PWD/link" 'no layer named'
          forgotten; refused vda/stream "base=a-base.qcow2 backing-file=$PWD/link" 'does not lead'
          forgotten; refused vda/stream "base=a-base.qcow2 backing-file=$PWD/mnt/vda" "$own"
          [ $(wc -l < mnt/.jobs/vda/chain) = 3 ]; [ $(wc -l < mnt/.jobs/vdb/chain) = 2 ]
          [ ! -e new ]
          chainfs unmount mnt
          """)
    }

    @Test("so is one in a file system on a device, also on a file there, alone and in a group")
    func fileSystems() throws {
      let box = try mounted()
      try box.run(
        functions + """
          mkdir on-a on-b in-b
          mkfs.ext4 -q mnt/vda; mkfs.ext4 -q mnt/vdb
          losetup -f --show mnt/vda > loop-a; mount $(cat loop-a) on-a
          losetup -f --show mnt/vdb > loop-b; mount $(cat loop-b) on-b
          truncate -s 32M on-b/inner; mkfs.ext4 -q on-b/inner; mount -o loop on-b/inner in-b
          qemu-img create -q -f qcow2 -b $PWD/a.qcow2 -F qcow2 on-b/there
          for place in on-a on-b in-b; do
            refused vda/snapshot "$PWD/$place/new" 'a file of this very mount'
            [ ! -e $place/new ]
          done
          refused vda/snapshot "$PWD/on-b/there mode=existing" "kept in $PWD/mnt/vdb"
          refused vda/snapshot "$(cat loop-b) mode=existing" "kept in $PWD/mnt/vdb"
          refused snapshot "vda=$PWD/on-b/new vdb=$PWD/new-b" "kept in $PWD/mnt/vdb"
          [ ! -e new-b ]
          umount in-b on-a on-b; losetup -d $(cat loop-a); losetup -d $(cat loop-b)
          chainfs unmount mnt
          qemu-img check -q a.qcow2; qemu-img check -q b.qcow2
          """)
    }
  }
}
