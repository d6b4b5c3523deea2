import Foundation
import TestSupport
import Testing

/// Whether the kernel offers io_uring to file systems that are mounted, as long as this object lives.
final class RingOffer {
  private static let parameter = "/sys/module/fuse/parameters/enable_uring"
  private let earlier: String

  init(_ isOffered: Bool) throws {
    earlier = try String(contentsOfFile: Self.parameter, encoding: .utf8)
    try Self.set(isOffered ? "Y" : "N")
  }

  deinit { try? Self.set(earlier) }

  private static func set(_ value: String) throws {
    try value.write(toFile: parameter, atomically: false, encoding: .utf8)
  }

  /// The program under test has a libfuse with io_uring, and the kernel can be told to offer it.
  static let isPossible: Bool = {
    let library = try? Shell.run(
      """
      library=$(ldd '\(Program.path)' | sed -n 's/.*libfuse3.* => \\([^ ]*\\) .*/\\1/p')
      grep -q io_uring_queue_init "$library" && [ -w \(parameter) ]
      """, in: "/")
    if library?.status == 0 { return true }
    print("skipped: no libfuse with io_uring in this build, or no kernel that offers it")
    return false
  }()
}

extension MountTests {
  @Suite(
    "FUSE over io_uring", .serialized, .timeLimit(.minutes(4)),
    .enabled(
      if: RingOffer.isPossible,
      "needs a build with libfuse 3.18 (mount-helpers/build-libfuse) and the kernel's enable_uring")
  )
  struct RingTests {
    private func mounted(_ offer: Bool = true) throws -> (RingOffer, Sandbox) {
      let offer = try RingOffer(offer)
      let box = try Sandbox()
      try box.run(
        """
        qemu-img create -q -f qcow2 base.qcow2 64M
        qemu-io -f qcow2 -c 'write -q -P 1 0 64M' base.qcow2
        qemu-img create -q -f qcow2 -b base.qcow2 -F qcow2 top.qcow2
        # The test library's threads block signals, and what they start inherits that.
        cat > free <<'END'
        #!/usr/bin/perl
        use POSIX;
        sigprocmask(SIG_SETMASK, POSIX::SigSet->new);
        exec @ARGV;
        END
        chmod +x free
        chainfs mount -o io_uring vda=top.qcow2 mnt
        stat -c %s mnt/vda > size
        """)
      return (offer, box)
    }

    /// How many threads of rings the daemon has.
    private func rings(_ box: Sandbox) throws -> Int {
      try #require(
        Int(
          box.run("cat /proc/$(chainfs status --pid mnt)/task/*/comm | grep -c ^fuse-ring- || true")
        ))
    }

    private let ends = """
      until [ ! -d /proc/$pid ] || grep -q "^State:.Z" /proc/$pid/status; do :; done
      """

    @Test("what goes through rings is what is read again, in small and in the largest requests")
    func verifies() throws {
      let (offer, box) = try mounted()
      #expect(try rings(box) == ProcessInfo.processInfo.processorCount)
      _ = try withExtendedLifetime(offer) {
        try box.run(
          """
          verify() { fio --name=v --filename=mnt/vda --verify=crc32c --verify_fatal=1 --size=48M "$@" > log; }
          verify --rw=randwrite --bs=4k --ioengine=libaio --iodepth=16 --direct=1
          verify --rw=randwrite --bs=512-64k --ioengine=psync --numjobs=4 --offset_increment=12M --size=12M
          verify --rw=write --bs=1M --ioengine=psync --direct=1
          verify --rw=write --bs=1M --ioengine=psync
          fio --name=r --filename=mnt/vda --rw=randread --bs=4k --ioengine=libaio --iodepth=16 \\
            --numjobs=2 --direct=1 --runtime=2 --time_based > log
          cp mnt/vda copy
          dd if=mnt/vda of=direct bs=1M iflag=direct status=none
          cmp copy direct
          head -c 67108864 /dev/urandom > noise
          dd if=noise of=mnt/vda bs=1M oflag=direct conv=notrunc status=none
          chainfs unmount mnt
          qemu-img check -q top.qcow2
          qemu-img compare -q -F raw top.qcow2 noise
          """, seconds: 120)
      }
    }

    @Test("a device cannot be stopped, and goes on")
    func stop() throws {
      let (offer, box) = try mounted()
      try withExtendedLifetime(offer) {
        let refused = try box.tryRun("echo > mnt/.jobs/vda/stop")
        #expect(refused.status == 1 && refused.errorOutput.contains("not supported"))
        #expect(try box.run("cat mnt/.jobs/vda/error").contains("mount without io_uring"))
        try box.run("cat mnt/vda > /dev/null; echo > mnt/.jobs/vda/cont; chainfs unmount mnt")
      }
    }

    @Test("where the kernel does not offer rings, the same program serves by the device")
    func withoutOffer() throws {
      let (offer, box) = try mounted(false)
      #expect(try rings(box) == 0)
      _ = try withExtendedLifetime(offer) {
        try box.run(
          """
          head -c 3000000 /dev/urandom > noise
          dd if=noise of=mnt/vda bs=1M conv=notrunc,fsync status=none
          cmp -n 3000000 noise mnt/vda
          chainfs stream --speed 64k mnt/vda
          timeout -s INT 0.5 ./free cat mnt/.jobs/vda/wait && exit 1
          echo > mnt/.jobs/vda/cancel
          chainfs unmount mnt
          qemu-img check -q top.qcow2
          """)
      }
    }

    @Test(
      "the end comes in the middle of load, and leaves an image without errors",
      arguments: ["kill $pid", "kill $pid; kill $pid || true", "umount -l mnt; kill $pid"])
    func endsUnderLoad(how: String) throws {
      let (offer, box) = try mounted()
      try withExtendedLifetime(offer) {
        for _ in 1...3 {
          try box.run(
            """
            pid=$(chainfs status --pid mnt)
            chainfs stream --speed 64k mnt/vda 2> /dev/null || true
            fio --name=w --filename=mnt/vda --rw=randrw --bs=4k --ioengine=libaio --iodepth=16 --direct=1 \\
              --numjobs=2 --runtime=20 --time_based > log 2>&1 & load=$!
            cat mnt/.jobs/vda/wait 2> /dev/null & reader=$!
            sleep 0.7
            \(how)
            \(ends)
            wait $load || true
            wait $reader || true
            ! grep -q " $PWD/mnt " /proc/mounts || umount -l mnt
            qemu-img check -q top.qcow2
            chainfs mount -o io_uring vda=top.qcow2 mnt
            """)
        }
        try box.run("chainfs unmount mnt")
      }
    }

    @Test("kill -9 in the middle of load ends the daemon and its users, and costs leaks at most")
    func killed() throws {
      let (offer, box) = try mounted()
      try withExtendedLifetime(offer) {
        for _ in 1...5 {
          try box.run(
            """
            pid=$(chainfs status --pid mnt)
            chainfs stream --speed 64k mnt/vda 2> /dev/null || true
            fio --name=w --filename=mnt/vda --rw=randrw --bs=4k --ioengine=libaio --iodepth=16 --direct=1 \\
              --numjobs=2 --runtime=20 --time_based > log 2>&1 & load=$!
            cat mnt/.jobs/vda/wait 2> /dev/null & reader=$!
            sleep 0.5
            kill -9 $pid
            \(ends)
            wait $load || true
            wait $reader || true
            umount -l mnt
            qemu-img check -q top.qcow2 || [ $? = 3 ]
            chainfs mount -o io_uring vda=top.qcow2 mnt
            """)
        }
        try box.run("chainfs unmount mnt; qemu-img check -q top.qcow2")
      }
    }

    @Test("readers that wait end by any signal, at once, and by the end of the job, under load too")
    func waits() throws {
      let (offer, box) = try mounted()
      _ = try withExtendedLifetime(offer) {
        try box.run(
          """
          ./free fio --name=r --filename=mnt/vda --rw=randread --bs=4k --ioengine=libaio --iodepth=16 \\
            --numjobs=2 --direct=1 --runtime=100 --time_based > log 2>&1 & load=$!
          # Without a job the end is there already; a slow one keeps readers waiting.
          chainfs stream --speed 64k mnt/vda
          for round in $(seq 20); do
            readers=
            for signal in HUP TERM KILL; do
              ./free cat mnt/.jobs/vda/wait & readers="$readers $signal:$!"
            done
            for reader in $readers; do kill -${reader%:*} ${reader#*:}; done
            for reader in $readers; do wait ${reader#*:} && exit 1; done
          done
          for round in $(seq 10); do
            timeout -s INT 0.2 ./free cat mnt/.jobs/vda/wait && exit 1
            timeout -s KILL 0.2 ./free cat mnt/.jobs/vda/wait && exit 1
          done
          # More than a ring has places: those who may wait leave places for the disk on each processor.
          readers=
          for reader in $(seq 20); do
            timeout 20 cat mnt/.jobs/vda/wait > end.$reader 2> refused.$reader & readers="$readers $!"
          done
          until [ $(cat refused.* | grep -c unavailable) = 12 ]; do sleep 0.1; done
          for processor in $(seq 0 $(($(nproc) - 1))); do
            taskset -c $processor timeout 10 \
              dd if=mnt/vda of=/dev/null bs=64k count=16 iflag=direct status=none
          done
          echo > mnt/.jobs/vda/cancel
          for reader in $readers; do wait $reader || true; done
          [ $(cat end.* | grep -c .) = 8 ]
          kill $load; wait $load || true
          chainfs unmount mnt
          """, seconds: 90)
      }
    }

    @Test("ext4 on a loop device on it keeps what it is given")
    func loop() throws {
      let (offer, box) = try mounted()
      _ = try withExtendedLifetime(offer) {
        try box.run(
          """
          mkdir fs; losetup -f --show mnt/vda > loop
          mkfs.ext4 -q $(cat loop); mount $(cat loop) fs
          head -c 20000000 /dev/urandom > fs/noise; sha256sum < fs/noise > sum
          umount fs; mount $(cat loop) fs; sha256sum < fs/noise | cmp - sum
          umount fs; losetup -d $(cat loop)
          chainfs unmount mnt; qemu-img check -q top.qcow2
          """)
      }
    }
  }
}
