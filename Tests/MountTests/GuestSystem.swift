import Foundation
import TestSupport

// A machine's disk that boots by itself: a boot sector, a partition with ext4, a loader, a kernel and an
// initramfs whose only program is busybox and whose init is the script below.
//
//     top.qcow2     the initramfs, and the loader's configuration
//     mid.qcow2     the kernel
//     base.qcow2    the partition table, the file system and the loader
//
// Each layer is written through a mount, and so no layer alone has a system.

enum GuestSystem {
  /// The kernel that mount-helpers/install-dependencies fetches.
  private static let kernel = "\(Program.project)/.build/guest-kernel"

  /// A guest can be booted. Under CI=true what is missing has to show, on machines that could have it.
  static let isAvailable: Bool = {
    #if arch(x86_64)
      ToolAvailability.has(["qemu-system-x86_64", "extlinux", "sfdisk", "busybox"])
        && (ProcessInfo.processInfo.environment["CI"] == "true"
          || FileManager.default.fileExists(atPath: kernel))
    #else
      false
    #endif
  }()

  /// What the guest does. Its last words on the console are `guest: done` or, anywhere, `guest: failed`.
  ///
  /// It writes numbers into files, forty names over and over so that a disk that is written to as long
  /// as the host likes does not fill up, and reports each when it is durable, with a word at the end by
  /// which a reader knows that the line is whole. It ends when it is told `end`, or after a bound that
  /// no test reaches.
  private static let initScript = """
    #!/bin/busybox sh
    /bin/busybox --install -s /bin
    mount -t devtmpfs dev /dev
    mount -t proc proc /proc
    exec < /dev/console > /dev/console 2>&1
    stty -echo
    failed() { echo "guest: failed: $*"; }
    for name in virtio_ring virtio virtio_pci_modern_dev virtio_pci_legacy_dev virtio_pci virtio_blk; do
      [ ! -e /modules/$name.ko ] || insmod /modules/$name.ko || failed module $name
    done
    until [ -b /dev/vda1 ]; do sleep 0.1; done
    mount -t ext4 /dev/vda1 /disk || failed mount
    cd /disk/data || failed data
    md5sum -c -s ../sums || failed system
    { until [ "$word" = end ]; do read word; done; > /told; } < /dev/console &
    echo 'guest: up'
    number=0
    until [ -e /told ] || [ $number = 10000 ]; do
      number=$((number + 1)) file=file-$((number % 40))
      if seq $((number * 7000)) $((number * 7000 + 6999)) | dd of=new bs=8k conv=fsync 2> /dev/null &&
        mv new $file && sync
      then echo "guest: wrote $number $file whole"
      else failed write $number
      fi
    done
    md5sum file-* > ../written
    sync; echo 3 > /proc/sys/vm/drop_caches
    md5sum -c -s ../written || failed read
    md5sum -c -s ../sums || failed system
    cd /; umount /disk || failed umount
    echo 'guest: done'
    poweroff -f
    """

  /// Makes the disk, and leaves it mounted as `mnt/vda`.
  static func make(in box: Sandbox) throws {
    try box.run("mkdir root tree tree/bin tree/dev tree/proc tree/disk")
    try initScript.write(toFile: "\(box.path)/tree/init", atomically: true, encoding: .utf8)
    try box.run(
      """
      chmod +x tree/init; cp "$(command -v busybox)" tree/bin/; cp -r \(kernel)/modules tree/
      (cd tree; find . | busybox cpio -o -H newc 2> ../cpio-said) | gzip -1 > initrd
      qemu-img create -q -f qcow2 base.qcow2 128M
      chainfs mount vda=base.qcow2 mnt
      # Runs a command while the partition is mounted.
      inside() {
        loop=$(losetup -f --show -o 1M mnt/vda); mount $loop root; "$@"; umount root; losetup -d $loop
      }
      add() { cp $1 root/boot/$2; (cd root/data; md5sum ../boot/$2 >> ../sums); }
      echo '2048,,L,*' | sfdisk -q mnt/vda
      dd if=/usr/lib/EXTLINUX/mbr.bin of=mnt/vda bs=440 count=1 conv=notrunc status=none
      # The loader does not know what later versions of ext4 have.
      loop=$(losetup -f --show -o 1M mnt/vda)
      mkfs.ext4 -q -O ^64bit,^metadata_csum $loop; losetup -d $loop
      inside mkdir root/boot root/data
      inside extlinux --install root/boot 2> extlinux-said
      echo $PWD/mid.qcow2 > mnt/.jobs/vda/snapshot
      inside add \(kernel)/vmlinuz vmlinuz
      echo $PWD/top.qcow2 > mnt/.jobs/vda/snapshot
      # Not a word on the console between the guest's.
      printf '%s\\n' 'default l' 'label l' 'linux vmlinuz' 'initrd initrd' \
        'append console=ttyS0 loglevel=1 panic=1' > extlinux.conf
      inside add initrd initrd
      inside add extlinux.conf extlinux.conf
      """)
  }
}
