import Foundation
import TestSupport
import Testing

extension MountTests {
  /// What chainfs is for, whole: a guest runs from the device file, and the chain below it changes.
  @Suite(
    "A guest", .serialized, .timeLimit(.minutes(8)),
    .enabled(if: GuestSystem.isAvailable, "needs qemu-system-x86_64, extlinux, sfdisk, busybox"))
  struct GuestTests {
    /// What the scripts below share.
    private static let functions = """
      wrote() { [ $(grep -c '^guest: wrote .* whole' console) -ge $1 ]; }
      # Waits for what the console says, as long as there is a guest.
      await() { until "$@"; do kill -0 $guest; sleep 0.05; done; }
      # Waits until the guest has written so many files more.
      more() { await wrote $(($(grep -c '^guest: wrote .* whole' console) + $1)); }
      # Fails unless a directory has every file that a console reported, whole, and with the number
      # that was reported last (-eq) or a later one (-ge).
      holds() {
        tr -d '\\r' < $2 | awk '/^guest: wrote/ && $5 == "whole" { last[$4] = $3 }
          END { for (file in last) print file, last[file] }' > reported
        [ -s reported ]
        while read file number; do
          found=$(($(head -n 1 $1/$file) / 7000))
          seq $((found * 7000)) $((found * 7000 + 6999)) | cmp - $1/$file
          [ $found $3 $number ]
          [ file-$((found % 40)) = $file ]
        done < reported
      }
      """

    @Test("it boots, and writes while its chain is streamed and snapshots are taken")
    func boots() throws {
      let box = try Sandbox()
      try GuestSystem.make(in: box)
      try Self.functions.write(
        toFile: "\(box.path)/functions", atomically: true, encoding: .utf8)
      try box.run(
        """
        . ./functions
        mkfifo keys; sha256sum base.qcow2 mid.qcow2 > before
        qemu-system-x86_64 -accel tcg -m 256 -display none -monitor none -serial stdio -nic none \
          -no-reboot -drive file=mnt/vda,format=raw,if=virtio,cache=none <> keys > console 2> said &
        guest=$!
        trap 'result=$?; [ $result = 0 ] || cat said console >&2; kill $guest || true' EXIT
        await grep -q '^guest: up' console
        more 5
        echo $PWD/first.qcow2 > mnt/.jobs/vda/snapshot
        more 5
        # A byte a second: the job does not end while the guest writes, however slow the machine is.
        echo base=base.qcow2 speed=1 > mnt/.jobs/vda/stream
        more 10
        ! echo $PWD/second.qcow2 2> refusal > mnt/.jobs/vda/snapshot
        grep -q 'resource busy' refusal; [ ! -e second.qcow2 ]
        # Now at a pace at which it and the guest get in each other's way.
        echo 4M > mnt/.jobs/vda/speed
        more 10
        # Which it may have done by now.
        echo 0 > mnt/.jobs/vda/speed || grep -q 'state: completed' mnt/.jobs/vda/status
        cat mnt/.jobs/vda/wait; grep -q 'state: completed' mnt/.jobs/vda/status
        more 5
        cp console moment; echo $PWD/second.qcow2 > mnt/.jobs/vda/snapshot
        more 10
        echo end > keys
        wait $guest
        grep -q '^guest: done' console; grep -q 'Power down' console
        [ $(grep -c 'guest: failed' console) = 0 ]
        """, seconds: 240)
      // What the guest left, and the chain.
      try box.run(
        """
        . ./functions
        loop=$(losetup -f --show -r -o 1M mnt/vda); e2fsck -fn $loop; mount -r $loop root
        holds root/data console -eq
        umount root; losetup -d $loop
        cut -f 5 mnt/.jobs/vda/chain | sed 's,.*/,,' | tr '\\n' ' ' > layers
        [ "$(cat layers)" = 'second.qcow2 first.qcow2 base.qcow2 ' ]
        chainfs unmount mnt
        qemu-img info --backing-chain second.qcow2 | sed -n 's,^image: \\(.*/\\)*,,p' > images
        [ "$(tr '\\n' ' ' < images)" = "$(cat layers)" ]
        for image in base mid top first second; do qemu-img check -q $image.qcow2; done
        sha256sum --quiet -c before
        """)
      // The moment of the second snapshot is what a power failure would have left at that moment: what was
      // reported before is in it.
      try box.run(
        """
        . ./functions
        qemu-img convert -f qcow2 -O raw first.qcow2 moment.raw
        loop=$(losetup -f --show -o 1M moment.raw); mount $loop root
        holds root/data moment -ge
        umount root; e2fsck -fn $loop; losetup -d $loop
        """)
    }
  }
}
