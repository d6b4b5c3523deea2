import Foundation
import Synchronization
import TestSupport
import Testing

extension MountTests {
  /// What a program can do to the files below `.jobs` without meaning anything by it.
  ///
  /// CHAINFS_ABUSE_WRITES sets how many writes each control file gets, and how many opens they get
  /// together: 10,000 for the long form.
  @Suite("Abuse of control files", .serialized, .timeLimit(.minutes(10)))
  struct AbuseTests {
    static let verbs = [
      "stream", "cancel", "speed", "pause", "resume", "snapshot", "stop", "cont", "finalize",
      "dismiss", "../snapshot", "../speed", "../monitor",
    ]
    static let settle = """
      echo > mnt/.jobs/vda/cancel || true; echo > mnt/.jobs/vda/cont; sha256sum < mnt/vda | cmp - sum
      """
    static let writers = 8
    static let writes =
      ProcessInfo.processInfo.environment["CHAINFS_ABUSE_WRITES"].flatMap { Int($0) } ?? 2000

    /// What a daemon takes of the host.
    struct Footprint {
      var residentBytes = 0
      var descriptors = 0
      var threads = 0

      init(of process: String) throws {
        let status = try String(contentsOfFile: "/proc/\(process)/status", encoding: .utf8)
        for line in status.split(separator: "\n") {
          let words = line.split(whereSeparator: { $0 == " " || $0 == "\t" })
          if words.first == "VmRSS:" { residentBytes = (Int(words[1]) ?? 0) << 10 }
          if words.first == "Threads:" { threads = Int(words[1]) ?? 0 }
        }
        descriptors = try FileManager.default.contentsOfDirectory(atPath: "/proc/\(process)/fd")
          .count
      }
    }

    private func mounted() throws -> Sandbox {
      let box = try Sandbox()
      try box.run(
        """
        qemu-img create -q -f qcow2 base 32M; qemu-io -f qcow2 -c 'write -q -P 1 0 32M' base
        qemu-img create -q -f qcow2 -b base -F qcow2 mid
        qemu-io -f qcow2 -c 'write -q -P 2 8M 8M' mid
        qemu-img create -q -f qcow2 -b mid -F qcow2 top
        qemu-io -f qcow2 -c 'write -q -P 3 16M 1M' top
        head -c 5000 /dev/urandom > note; cp note held
        chainfs mount -o cache=none,log=log vda=top mnt
        sha256sum < mnt/vda > sum
        """)
      return box
    }

    /// Runs a body on threads of its own, and waits for all of them.
    private func together(_ count: Int, _ body: @escaping @Sendable (Int) -> Void) {
      let group = DispatchGroup()
      for number in 0..<count {
        let thread = Thread {
          body(number)
          group.leave()
        }
        group.enter()
        thread.start()
      }
      group.wait()
    }

    /// Throws garbage at all control files from all threads; gives how many writes there were.
    private func throwGarbage(
      _ box: Sandbox, seed: UInt64, writesOfEach: Int
    ) -> (written: Int, taken: Int) {
      let directory = box.path
      let written = Atomic<Int>(0)
      let taken = Atomic<Int>(0)
      together(Self.writers) { thread in
        var garbage = Garbage(seed: seed &+ UInt64(thread), directory: directory)
        for round in 0..<writesOfEach / Self.writers {
          for verb in Self.verbs {
            let flags = [
              O_WRONLY, O_WRONLY | O_TRUNC, O_RDWR | O_APPEND, O_RDWR | O_TRUNC | O_SYNC,
            ]
            var flag = flags[garbage.number(below: flags.count)]
            if verb == "../monitor" { flag = flag & ~O_ACCMODE | O_RDWR }
            let file = open("\(directory)/mnt/.jobs/vda/\(verb)", flag)
            if file < 0 { continue }
            let bytes = garbage.bytes(for: verb)
            let place = round % 3 == 0 ? off_t(garbage.number(below: 1 << 40)) : 0
            let count = pwrite(file, bytes, bytes.count, place)
            written.add(1, ordering: .relaxed)
            if count == bytes.count { taken.add(1, ordering: .relaxed) }
            // What a shell leaves to chance: a second piece on the same open file.
            if round % 5 == 0 { _ = write(file, bytes, min(bytes.count, 3)) }
            if verb == "../monitor" { Self.waitForLines(file) }
            close(file)
          }
        }
      }
      return (written.load(ordering: .relaxed), taken.load(ordering: .relaxed))
    }

    /// A line of the monitor goes on after it was written, and after its file was closed: a stop would come
    /// after the end of all stops.
    private static func waitForLines(_ monitor: Int32) {
      var byte: UInt8 = 0
      _ = pread(monitor, &byte, 1, 0)
    }

    @Test("garbage on every control file, from eight threads, leaves daemon and disk as they were")
    func garbage() throws {
      let seed = Seed.of("garbage")
      let box = try mounted()
      let process = try box.run("chainfs status --pid mnt")
      // The caches of the C library and the threads of the session are there after this.
      _ = throwGarbage(box, seed: seed, writesOfEach: Self.writes / 2)
      try box.run(Self.settle)
      let before = try Footprint(of: process)
      let (written, taken) = throwGarbage(box, seed: seed &+ 100, writesOfEach: Self.writes)
      try box.run(Self.settle)
      let after = try Footprint(of: process)
      print("garbage: \(written) writes, \(taken) taken, \(before) -> \(after)")
      #expect(written >= (Self.writes / Self.writers) * Self.writers * Self.verbs.count)
      #expect(after.residentBytes - before.residentBytes < 4 << 20)
      #expect(after.descriptors <= before.descriptors + 2)
      #expect(after.threads <= before.threads + 3)
      #expect(try box.run("chainfs status --pid mnt") == process)
      try box.run(
        """
        chainfs unmount mnt; cmp note held
        qemu-img check -q top; qemu-img convert -O raw top flat; sha256sum < flat | cmp - sum
        """)
    }

    @Test("files that are opened, polled and watched while jobs come and go leave nothing behind")
    func races() throws {
      let box = try mounted()
      let process = try box.run("chainfs status --pid mnt")
      let seed = Seed.of("races")
      let jobs = box.path + "/mnt/.jobs"
      let names = try box.run("cd mnt/.jobs; find . -type f").split(separator: "\n")
        .map(String.init)
      func race(_ rounds: Int) {
        together(Self.writers) { thread in
          var random = SeededGenerator(seed: seed &+ UInt64(thread))
          for round in 0..<rounds / Self.writers {
            if thread == 0 {
              for (verb, text) in [("stream", "base=base speed=1\n"), ("cancel", "\n")] {
                let file = open("\(jobs)/vda/\(verb)", O_WRONLY)
                _ = write(file, text, text.utf8.count)
                close(file)
              }
            }
            let name = names[Int.random(in: 0..<names.count, using: &random)]
            let file = open("\(jobs)/\(name)", O_RDONLY | O_NONBLOCK)
            if file < 0 { continue }
            Self.disturb(file, path: "\(jobs)/\(name)", round: round)
            close(file)
          }
        }
      }
      race(1000)
      try box.run("echo > mnt/.jobs/vda/cancel || true")
      let before = try Footprint(of: process)
      race(Self.writes)
      try box.run("echo > mnt/.jobs/vda/cancel || true")
      let after = try Footprint(of: process)
      print("races: \(before) -> \(after)")
      #expect(after.residentBytes - before.residentBytes < 4 << 20)
      #expect(after.descriptors <= before.descriptors + 2)
      #expect(after.threads <= before.threads + 3)
      try box.run("sha256sum < mnt/vda | cmp - sum; chainfs unmount mnt; qemu-img check -q top")
    }

    /// What programs do to files that they take for something else.
    private static func disturb(_ file: Int32, path: String, round: Int) {
      var bytes = [UInt8](repeating: 0, count: 300)
      var waits = [pollfd(fd: file, events: Int16(POLLIN | POLLOUT | POLLPRI), revents: 0)]
      _ = poll(&waits, 1, Int32(round % 2))
      _ = read(file, &bytes, 1 + round % 299)
      _ = pread(file, &bytes, 300, off_t(round * 7919))
      _ = lseek(file, 0, Int32(round % 5))
      _ = ftruncate(file, off_t(round))
      _ = fsync(file)
      var number: Int32 = 0
      _ = ioctl(file, UInt(FIONREAD), &number)
      _ = flock(file, LOCK_EX | LOCK_NB)
      if let memory = mmap(nil, 4096, PROT_READ, MAP_SHARED, file, 0), memory != MAP_FAILED {
        munmap(memory, 4096)
      }
      let watch = inotify_init1(Int32(O_NONBLOCK))
      inotify_add_watch(watch, path, UInt32(IN_MODIFY | IN_CLOSE | IN_OPEN))
      close(watch)
    }

    @Test("a daemon that is told to go while its files are beaten goes, and lets everybody go")
    func goesUnderFire() throws {
      for round in 0..<4 {
        let box = try mounted()
        let process = try box.run("chainfs status --pid mnt")
        try box.run("echo 'base=base speed=1' > mnt/.jobs/vda/stream")
        let directory = box.path
        let jobs = directory + "/mnt/.jobs"
        let hasEnded = Atomic<Bool>(false)
        together(5) { thread in
          if thread == 0 {
            usleep(20_000 * UInt32(round + 1))
            _ = try? Shell.run(
              "\(round % 2 == 0 ? "" : "umount -l mnt; ")kill -TERM \(process)", in: directory)
            let limit = Date().addingTimeInterval(30)
            while FileManager.default.fileExists(atPath: "/proc/\(process)"), Date() < limit {
              usleep(1000)
            }
            hasEnded.store(true, ordering: .relaxed)
            return
          }
          while !hasEnded.load(ordering: .relaxed) {
            for name in [
              "vda/wait", "status", "vda/status.json", "vda/plan", "vda/speed", "metrics",
              "monitor",
            ] {
              let file = open("\(jobs)/\(name)", O_RDWR | (thread == 1 ? 0 : O_NONBLOCK))
              let other = file < 0 ? open("\(jobs)/\(name)", O_RDONLY | O_NONBLOCK) : file
              if other < 0 { continue }
              Self.disturb(other, path: "\(jobs)/\(name)", round: round)
              close(other)
            }
          }
        }
        #expect(!FileManager.default.fileExists(atPath: "/proc/\(process)"))
        try box.run(
          """
          umount -l mnt 2> /dev/null || true
          qemu-img check -q top; qemu-img convert -O raw top flat; sha256sum < flat | cmp - sum
          """)
      }
    }
  }
}
