import Foundation
import TestSupport
import Testing

extension MountTests {
  /// What happens to a mounted disk when somebody lays hands on the files below it.
  ///
  /// The chain is top over base, 8 MiB; the base has 0x11 in its first half and 0x22 in its second, the top
  /// has 0x33 in the first 64 KiB of each.
  @Suite("Layers that vanish", .serialized, .timeLimit(.minutes(5)))
  struct VanishedTests {
    /// How a base is made, what is done to it, and what of its bytes must go on being read.
    struct Damage: CustomTestStringConvertible {
      var testDescription: String
      var make = "qemu-img create -q -f qcow2 base 8M; fill qcow2"
      var format = "qcow2"
      var options = ""
      var damage: String
      /// The first half is still there, and the second is not.
      var losesSecondHalf = true
      /// What mends it.
      var mend = "cat whole > base"
      /// Tables that were read are kept as they were, so that what mends them is seen by a new mount.
      var keepsTables = false
    }

    static let damages = [
      Damage(testDescription: "truncated", damage: "truncate -s 4M base"),
      Damage(
        testDescription: "truncated, raw", make: "truncate -s 8M base; fill raw", format: "raw",
        damage: "truncate -s 4M base"),
      Damage(
        testDescription: "truncated, a data file",
        make: "qemu-img create -q -f qcow2 -o data_file=base.data base 8M; fill qcow2",
        damage: "cp base.data whole; truncate -s 4M base.data", mend: "cat whole > base.data"),
      Damage(
        testDescription: "truncated, encrypted",
        make: """
          printf abc > key
          again qemu-img create -q -f qcow2 --object secret,id=s,data=abc \\
            -o encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10 base 8M
          chainfs mount -o secret=key vda=base mnt
          head -c 4M /dev/zero | tr '\\0' '\\21' > half
          head -c 4M /dev/zero | tr '\\0' '\\42' | cat half - > both
          dd if=both of=mnt/vda bs=1M conv=notrunc,fsync 2> /dev/null
          chainfs unmount mnt
          """,
        options: "-o secret=key", damage: "truncate -s 4M base"),
      Damage(
        testDescription: "a loop device whose file is truncated",
        make: """
          truncate -s 8M file; loop=$(losetup -f --show file); ln -s $loop base; fill raw
          sync; echo $loop > loop
          """,
        format: "raw",
        damage: "cp file whole; truncate -s 4M file; blockdev --flushbufs $(cat loop)",
        mend: "cat whole > file; blockdev --flushbufs $(cat loop)"),
      Damage(
        testDescription: "tables overwritten",
        make: "qemu-img create -q -f qcow2 -o cluster_size=4k base 8M; fill qcow2",
        damage: """
          l1=$((0x$(xxd -s 40 -l 8 -p base)))
          # The L1 entries of the second half say where the tables are; each maps 2 MiB.
          for entry in 2 3; do
            table=$((0x$(xxd -s $((l1 + 8 * entry)) -l 8 -p base) & 0xfffffffffffe00))
            head -c 4096 /dev/zero | tr '\\0' '\\377' |
              dd of=base bs=1 seek=$table conv=notrunc 2> /dev/null
          done
          """,
        keepsTables: true),
      Damage(
        testDescription: "compressed clusters overwritten",
        make: """
          qemu-img create -q -f qcow2 plain 8M; mv plain base; fill qcow2
          qemu-img convert -c -O qcow2 base small; mv small base
          """,
        damage: """
          offset=$(chainfs map base | wc -l)
          l1=$((0x$(xxd -s 40 -l 8 -p base)))
          table=$((0x$(xxd -s $l1 -l 8 -p base) & 0xfffffffffffe00))
          first=$((0x$(xxd -s $((table + 8 * 64)) -l 8 -p base) & 0x3fffffffffffff))
          head -c 8192 /dev/zero | tr '\\0' '\\377' |
            dd of=base bs=1 seek=$first conv=notrunc 2> /dev/null
          """),
      Damage(testDescription: "removed", damage: "rm base", losesSecondHalf: false),
      Damage(
        testDescription: "replaced", damage: "qemu-img create -q -f qcow2 b 8M; mv b base",
        losesSecondHalf: false),
      Damage(testDescription: "forbidden", damage: "chmod 000 base", losesSecondHalf: false),
      Damage(
        testDescription: "its header overwritten",
        damage: "head -c 4096 /dev/urandom | dd of=base conv=notrunc 2> /dev/null",
        losesSecondHalf: false),
    ]

    private func mounted(_ damage: Damage) throws -> Sandbox {
      let box = try Sandbox()
      try box.run(
        """
        fill() { qemu-io -f $1 -c 'write -q -P 17 0 4M' -c 'write -q -P 34 4M 4M' base; }
        \(damage.make)
        cp -L --sparse=always base whole
        qemu-img create -q -u -f qcow2 -b base -F \(damage.format) top 8M
        qemu-io -f qcow2 -c 'write -q -P 51 0 64k' -c 'write -q -P 51 4M 64k' \\
          "json:{\\"driver\\":\\"qcow2\\",\\"file.filename\\":\\"top\\",\\"backing\\":null}"
        for part in 63:64 21:4032 63:64 42:4032; do
          head -c $((${part#*:} * 1024)) /dev/zero | tr '\\0' "\\\\${part%:*}"
        done | sha256sum > sum
        chainfs mount \(damage.options) -o cache=none,log=log vda=top mnt
        """)
      return box
    }

    /// Shell functions: `is BYTE OFFSET LENGTH` compares bytes of the disk, in KiB.
    static let functions = """
      is() { dd if=mnt/vda bs=1k skip=$2 count=$3 2> /dev/null | cmp -n $(($3 * 1024)) - \
        <(head -c $(($3 * 1024)) /dev/zero | tr '\\0' "\\\\$1"); }
      broken() { dd if=mnt/vda bs=1k skip=$1 count=$2 of=/dev/null 2> said && exit 1
        grep -q 'Input/output error' said; }

      """

    @Test(
      "what is there is read, what is gone is EIO and a line, and writes go on", arguments: damages)
    func damaged(_ damage: Damage) throws {
      let box = try mounted(damage)
      try box.run(damage.damage)
      try box.run(
        Self.functions + """
          is 063 0 64; is 063 4096 64; is 021 64 1000
          if \(damage.losesSecondHalf); then
            broken 4160 4
            grep -q 'vda: .*\(damage.testDescription.contains("loop") ? "" : box.path)' log
          else
            is 042 4160 4032
            [ ! -s log ]
          fi
          # Whole clusters of the guest need nothing from below.
          head -c 64k /dev/zero | tr '\\0' '\\125' |
            dd of=mnt/vda bs=64k seek=100 iflag=fullblock conv=notrunc,fsync 2> /dev/null
          is 125 6400 64; is 063 0 64
          stat mnt/vda > /dev/null; cat mnt/.jobs/vda/info mnt/.jobs/vda/status > /dev/null
          chainfs unmount mnt
          """)
      try box.run("chainfs check top")
    }

    @Test(
      "a stream over a hole in the chain does as on-error says, and loses nothing",
      arguments: damages.filter(\.losesSecondHalf))
    func streamed(_ damage: Damage) throws {
      let box = try mounted(damage)
      try box.run(damage.damage)
      let before = try box.run("qemu-img info -U top | grep 'backing file'")
      for policy in ["report", "ignore"] {
        try box.run("echo on-error=\(policy) > mnt/.jobs/vda/stream; cat mnt/.jobs/vda/wait")
        let status = try box.status()
        #expect(status["state"] == "failed", "\(policy): \(status)")
        #expect(status["error"]?.isEmpty == false)
        #expect(try box.run("qemu-img info -U top | grep 'backing file'") == before)
      }
      try box.run("echo on-error=stop > mnt/.jobs/vda/stream")
      try box.run("until grep -q stopped-on-error mnt/.jobs/vda/status; do :; done")
      try box.run(Self.functions + "is 063 0 64; is 021 64 1000; is 063 4096 64")
      try box.run(damage.mend)
      if damage.keepsTables {
        try box.run("chainfs unmount mnt; chainfs mount vda=top mnt")
      }
      // A job that went on with the new mount may be over already.
      try box.run(
        """
        echo > mnt/.jobs/vda/resume || grep -q completed mnt/.jobs/vda/status
        cat mnt/.jobs/vda/wait
        """)
      #expect(try box.status()["state"] == "completed")
      try box.run(
        """
        sha256sum < mnt/vda | cmp - sum; chainfs unmount mnt; qemu-img check -q top
        qemu-img info top | grep 'backing file' && exit 1
        rm -f base; chainfs mount vda=top mnt; sha256sum < mnt/vda | cmp - sum; chainfs unmount mnt
        """)
    }

    @Test("20,000 reads that fail, each at a place of its own, are a few lines and no crash")
    func crowdOfFailures() throws {
      let box = try mounted(Self.damages[0])
      try box.run(Self.damages[0].damage)
      let descriptor = open(box.device, O_RDONLY)
      defer { close(descriptor) }
      var bytes = [UInt8](repeating: 0, count: 512)
      var failed = 0
      for number in 0..<20_000 {
        let place = 4 << 20 | 64 << 10 + number * 171 % (3 << 20)
        if pread(descriptor, &bytes, 512, off_t(place)) == -1, errno == EIO { failed += 1 }
      }
      #expect(failed == 20_000)
      let lines = try Int(box.run("wc -l < log")) ?? 0
      #expect((1...20).contains(lines), "\(lines)")
      print("crowdOfFailures: \(failed) failed reads, \(lines) lines")
    }

    @Test("an active image whose name is gone goes on, and is no base for a snapshot")
    func activeVanishes() throws {
      for damage in ["rm top", "qemu-img create -q -f qcow2 other 8M; mv other top"] {
        let box = try mounted(Self.damages[0])
        try box.run("cp top held; ln top kept; \(damage)")
        let refusal = try box.tryRun("echo $PWD/new > mnt/.jobs/vda/snapshot")
        #expect(refusal.status == 1)
        try box.run(
          Self.functions + """
            [ ! -e new ]; grep -q top mnt/.jobs/vda/error
            head -c 64k /dev/zero | tr '\\0' '\\125' |
              dd of=mnt/vda bs=64k seek=100 iflag=fullblock conv=notrunc,fsync 2> /dev/null
            is 125 6400 64; is 021 64 100
            chainfs stream --wait mnt/vda
            is 042 4160 100; chainfs unmount mnt; qemu-img check -q kept
            qemu-io -f qcow2 -c 'read -q -P 85 6400k 64k' -c 'read -q -P 34 7M 1M' kept
            """)
      }
    }
  }
}
