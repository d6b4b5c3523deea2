import TestSupport
import Testing

extension MountTests {
  @Suite("The limit of all streams", .serialized, .timeLimit(.minutes(3)))
  struct SharedLimitTests {
    private func mounted() throws -> Sandbox {
      let box = try Sandbox()
      try box.run(
        """
        for name in vda vdb; do
          qemu-img create -q -f qcow2 $name-base 256M
          qemu-io -f qcow2 -c 'write -q -P 3 0 256M' $name-base
          qemu-img create -q -f qcow2 -b $name-base -F qcow2 $name
        done
        chainfs mount vda=vda vdb=vdb mnt
        """)
      return box
    }

    /// Bytes a second that both streams copied, over more than two seconds.
    private func rates(_ box: Sandbox) throws -> [Double] {
      let lines = try box.run(
        """
        look() {
          sed -n 's/^copied: //p' mnt/.jobs/vda/status mnt/.jobs/vdb/status; date +%s%N
        }
        look; end=$(($(date +%s%N) + 2500000000))
        until [ $(date +%s%N) -ge $end ]; do :; done
        look
        """)
      let numbers = lines.split(separator: "\n").compactMap { Double($0) }
      try #require(numbers.count == 6, "\(lines)")
      let seconds = (numbers[5] - numbers[2]) / 1e9
      return [(numbers[3] - numbers[0]) / seconds, (numbers[4] - numbers[1]) / seconds]
    }

    @Test("two streams share it, a lower limit of one leaves the rest to the other, and it changes")
    func shared() throws {
      let box = try mounted()
      let mebibyte = 1048576.0
      #expect(try box.run("cat mnt/.jobs/speed; stat -c %a mnt/.jobs/speed") == "0\n600")
      try box.run(
        "echo 8M > mnt/.jobs/speed; for d in vda vdb; do echo > mnt/.jobs/$d/stream; done")
      #expect(try box.run("cat mnt/.jobs/speed") == "8388608")
      #expect(try box.run("cat mnt/.jobs/vda/speed") == "0")
      func expect(_ parts: [Double]) throws {
        // A machine that is busy for two seconds copies less: the limit shows in one of some looks.
        var all: [[Double]] = []
        for _ in 0..<5 {
          let rates = try rates(box)
          all.append(rates)
          if zip(rates, parts).allSatisfy({ abs($0 - $1) <= 0.05 * $1 }) { return }
        }
        Issue.record("\(all), not \(parts)")
      }
      try expect([4 * mebibyte, 4 * mebibyte])
      try box.run("echo 1M > mnt/.jobs/vdb/speed")
      try expect([7 * mebibyte, mebibyte])
      try box.run("echo 0 > mnt/.jobs/vdb/speed; echo 24M > mnt/.jobs/speed")
      try expect([12 * mebibyte, 12 * mebibyte])
      try box.run("echo > mnt/.jobs/vdb/pause; echo 8m > mnt/.jobs/speed")
      try expect([8 * mebibyte, 0])
      for (text, words) in [("fast", "fast"), ("", "needs a size"), ("-1", "-1")] {
        let refusal = try box.tryRun("echo '\(text)' > mnt/.jobs/speed")
        #expect(refusal.status == 1 && refusal.errorOutput.contains("Invalid argument"))
        #expect(try box.run("cat mnt/.jobs/vda/error").contains(words))
      }
      #expect(try box.run("cat mnt/.jobs/speed") == "8388608")
      try box.run(
        """
        echo > mnt/.jobs/vdb/resume; echo 1 > mnt/.jobs/speed; echo 0 > mnt/.jobs/speed
        cat mnt/.jobs/vda/wait mnt/.jobs/vdb/wait
        """)
      for device in ["vda", "vdb"] {
        #expect(try box.status(of: device)["state"] == "completed")
      }
      try box.run("chainfs unmount mnt; qemu-img check -q vda; qemu-img check -q vdb")
    }
  }
}
