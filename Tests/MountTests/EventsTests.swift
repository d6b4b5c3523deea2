import TestSupport
import Testing

extension MountTests {
  @Suite("Events", .serialized, .timeLimit(.minutes(5)))
  struct EventsTests {
    private static let success = "created running waiting pending COMPLETED concluded null"

    /// A mounted overlay over half a disk of data, and the functions of the scripts below.
    private func mounted(_ arguments: String = "vda=top.qcow2") throws -> Sandbox {
      let box = try Sandbox()
      try box.run(
        """
        qemu-img create -q -f qcow2 base.qcow2 16M; qemu-io -f qcow2 -c 'write -q -P 1 0 8M' base.qcow2
        qemu-img create -q -f qcow2 -b base.qcow2 -F qcow2 top.qcow2
        # The test library's threads block signals, and the shell's jobs ignore some; what they start
        # inherits that.
        cat > free <<'END'
        #!/usr/bin/perl
        use POSIX;
        sigprocmask(SIG_SETMASK, POSIX::SigSet->new);
        $SIG{INT} = 'DEFAULT';
        exec @ARGV;
        END
        chmod +x free
        cat > functions <<'END'
        words() {
          sed -n 's/.*JOB_STATUS_CHANGE.*"status": "\\([a-z]*\\)".*/\\1/p
            s/.*"BLOCK_JOB_\\([A-Z]*\\)".*/\\1/p' $1 | tr '\\n' ' ' | sed 's/ $//'
        }
        # Until a file has so many lines with a word.
        await() { until [ $(grep -c "$2" $1) -ge ${3:-1} ]; do sleep 0.01; done; }
        END
        chainfs mount \(arguments) mnt
        """)
      return box
    }

    private func run(_ box: Sandbox, _ script: String, seconds: Double = 60) throws -> String {
      try box.run(". ./functions\n" + script, seconds: seconds)
    }

    @Test("cat gets each event of a stream as a line of JSON, from its open on")
    func cat() throws {
      let box = try mounted()
      let words = try run(
        box,
        """
        echo speed=1 > mnt/.jobs/vda/stream; echo > mnt/.jobs/vda/cancel
        exec 9< mnt/.jobs/events
        cat <&9 > out & reader=$!
        echo > mnt/.jobs/vda/stream
        await out '"null"'
        kill -9 $reader
        words out
        """)
      #expect(words == Self.success)
      let checked = try run(
        box,
        """
        python3 - <<'END'
        import json, time
        last = 0
        for line in open("out"):
            event = json.loads(line)
            assert list(event) == ["timestamp", "event", "data"]
            moment = event["timestamp"]["seconds"] + event["timestamp"]["microseconds"] / 1e6
            assert last <= moment <= time.time() and moment > time.time() - 60
            last = moment
            if event["event"] == "BLOCK_JOB_COMPLETED": print(event["data"])
        END
        """)
      #expect(
        checked
          == "{'device': 'vda', 'len': 16777216, 'offset': 16777216, 'speed': 0, 'type': 'stream'}")
      try box.run("chainfs unmount mnt; qemu-img check -q top.qcow2")
    }

    @Test("tail -f follows the events of a cancelled job")
    func tail() throws {
      let box = try mounted()
      let words = try run(
        box,
        """
        tail -f mnt/.jobs/events > out & reader=$!
        until ls -l /proc/$reader/fd | grep -q jobs/events; do :; done
        echo speed=1 > mnt/.jobs/vda/stream
        await out running
        echo > mnt/.jobs/vda/pause
        echo > mnt/.jobs/vda/cancel
        await out '"null"'
        kill -9 $reader
        words out
        """)
      #expect(
        words == "created running paused running aborting CANCELLED concluded null")
      try box.run("chainfs unmount mnt")
    }

    @Test("a job that fails tells its error, and ends with it")
    func failure() throws {
      let box = try Sandbox()
      try box.run(
        """
        head -c 3M /dev/urandom | base64 -w0 > noise; truncate -s 4M noise
        qemu-img convert -c -f raw -O qcow2 noise base.qcow2
        head -c 1M /dev/zero | tr '\\0' '\\377' |
          dd of=base.qcow2 bs=64k seek=6 conv=notrunc status=none
        qemu-img create -q -f qcow2 -b base.qcow2 -F qcow2 top.qcow2
        chainfs mount vda=top.qcow2 mnt
        exec 9< mnt/.jobs/events
        echo > mnt/.jobs/vda/stream
        cat mnt/.jobs/vda/wait
        head -n 7 <&9 > out
        """)
      let lines = try box.run("cat out").split(separator: "\n")
      let parts = [
        "created", "running",
        #""BLOCK_JOB_ERROR", "data": {"device": "vda", "operation": "read", "action": "report"}}"#,
        "aborting", #""type": "stream", "error": "vda: "#, "concluded", "null",
      ]
      #expect(lines.count == parts.count)
      for (line, part) in zip(lines, parts) { #expect(line.contains(part)) }
      try box.run("chainfs unmount mnt; qemu-img check -q top.qcow2")
    }

    @Test("epoll and poll tell when there is an event, and a read without one is EAGAIN")
    func epoll() throws {
      let box = try mounted()
      let words = try run(
        box,
        """
        cat > watch.py <<'END'
        import errno, os, select, sys
        def write(verb, text=""):
            file = os.open("mnt/.jobs/vda/" + verb, os.O_WRONLY)
            os.write(file, (text + "\\n").encode())
            os.close(file)
        def empty(file):
            try: os.read(file, 10)
            except BlockingIOError: return True
            return False
        file = os.open("mnt/.jobs/events", os.O_RDONLY | os.O_NONBLOCK)
        assert empty(file)
        plain = select.poll()
        plain.register(file, select.POLLIN)
        assert plain.poll(0) == []
        events = select.epoll()
        events.register(file, select.EPOLLIN | int(sys.argv[1]))
        assert events.poll(0.2) == []
        write("stream", "speed=1")
        assert plain.poll(20000) == [(file, select.POLLIN)]
        got = b""
        def follow(word):
            global got
            while word not in got:
                assert events.poll(20), got
                while True:
                    try: got += os.read(file, 1000)
                    except BlockingIOError: break
        follow(b"running")
        assert events.poll(0.2) == [] and plain.poll(0) == []
        write("pause")
        follow(b"paused")
        write("cancel")
        follow(b"null")
        assert empty(file) and plain.poll(0) == []
        open("out", "wb").write(got)
        END
        for edge in 0 $((1 << 31)); do timeout -s KILL 50 python3 watch.py $edge; words out; echo; done
        """, seconds: 120)
      let line = "created running paused running aborting CANCELLED concluded null"
      #expect(words == "\(line)\n\(line)")
      try box.run("chainfs unmount mnt")
    }

    @Test(
      "a reader that waits ends by any signal, and loses nothing for others",
      arguments: ["INT", "KILL"])
    func killed(signal: String) throws {
      let box = try mounted()
      let words = try run(
        box,
        """
        exec 9< mnt/.jobs/events
        ./free cat <&9 > first & reader=$!
        # Waits in the read, or is about to.
        until grep -q S /proc/$reader/stat && [ "$(cat /proc/$reader/comm)" = cat ]; do :; done
        sleep 0.1
        kill -\(signal) $reader
        wait $reader || true
        ./free cat <&9 > second & reader=$!
        echo > mnt/.jobs/vda/stream
        await second '"null"'
        kill -9 $reader
        [ ! -s first ]
        words second
        """)
      #expect(words == Self.success)
      try box.run("chainfs unmount mnt")
    }

    @Test("a hundred readers that wait get all, and so do a hundred that are polled")
    func manyReaders() throws {
      let box = try mounted()
      let words = try run(
        box,
        """
        for n in $(seq 100); do
          exec {file}< mnt/.jobs/events
          cat <&$file > out$n & readers="$readers $!"
          exec {file}<&-
        done
        cat > poll.py <<'END'
        import os, select
        files = [os.open("mnt/.jobs/events", os.O_RDONLY | os.O_NONBLOCK) for n in range(100)]
        got = {file: b"" for file in files}
        events = select.epoll()
        for file in files: events.register(file, select.EPOLLIN)
        os.write(os.open("mnt/.jobs/vda/stream", os.O_WRONLY), b"\\n")
        while not all(b"null" in text for text in got.values()):
            for file, _ in events.poll(20): got[file] += os.read(file, 4096)
        assert len(set(got.values())) == 1
        open("polled", "wb").write(got[files[0]])
        END
        timeout -s KILL 50 python3 poll.py
        for n in $(seq 100); do await out$n '"null"'; cmp out$n polled; done
        kill -9 $readers
        words polled
        """, seconds: 120)
      #expect(words == Self.success)
      try box.run("chainfs unmount mnt")
    }

    @Test("a reader that never reads costs no memory, and finds the newest events when it does")
    func neverReads() throws {
      let box = try Sandbox()
      let lines = try box.run(
        """
        qemu-img create -q -f qcow2 top.qcow2 4M; chainfs mount vda=top.qcow2 mnt
        resident() { awk '/^VmRSS/ { print $2 }' /proc/$(chainfs status --pid mnt)/status; }
        jobs() { for n in $(seq $1); do echo > mnt/.jobs/vda/stream; done; }
        jobs 200
        exec 9< mnt/.jobs/events
        before=$(resident)
        jobs 400
        echo $(($(resident) - before)) > grown
        head -n 1024 <&9 > out
        echo id=last > mnt/.jobs/vda/stream
        head -n 1 <&9 > next
        grep -c '"vda"' out; tail -n 1 out; cat next
        """, seconds: 120
      ).split(separator: "\n")
      #expect(lines.count == 3 && lines[0] == "1024")
      #expect(lines[1].contains(#"{"status": "null", "id": "vda"}"#))
      #expect(lines[2].contains(#"{"status": "created", "id": "last"}"#))
      let grown = try #require(Int(try box.run("cat grown")))
      #expect(grown < 1024, "KiB")
      try box.run("chainfs unmount mnt")
    }

    @Test("a small buffer gets an event in parts, and none of it is lost")
    func parts() throws {
      let box = try mounted()
      let words = try run(
        box,
        """
        exec 8< mnt/.jobs/events; exec 9< mnt/.jobs/events
        dd bs=7 count=50 iflag=fullblock <&9 of=part status=none & reader=$!
        echo > mnt/.jobs/vda/stream; cat mnt/.jobs/vda/wait > /dev/null
        wait $reader
        head -n 7 <&8 > whole
        cmp -n 350 part whole
        [ $(stat -c %s part) = 350 ]
        words whole
        """)
      #expect(words == Self.success)
      try box.run("chainfs unmount mnt")
    }

    @Test("a job that is to be finalized waits over a kill, changes no header, and then completes")
    func finalize() throws {
      let box = try mounted()
      let words = try run(
        box,
        """
        qemu-img convert -O raw -U top.qcow2 disk.raw
        await_pending() { until grep -q '^state: pending' mnt/.jobs/vda/status; do sleep 0.01; done; }
        echo 'auto-finalize=no auto-dismiss=no id=job0' > mnt/.jobs/vda/stream
        await_pending
        printf guest | tee >(dd of=mnt/vda bs=1 seek=100000 conv=notrunc,fsync status=none) |
          dd of=disk.raw bs=1 seek=100000 conv=notrunc status=none
        cmp mnt/vda disk.raw
        pid=$(chainfs status --pid mnt); kill -9 $pid; umount -l mnt
        until [ ! -d /proc/$pid ] || grep -q "^State:.Z" /proc/$pid/status; do :; done
        qemu-img info top.qcow2 | grep -q '^backing file: base.qcow2'
        chainfs mount vda=top.qcow2 mnt
        exec 9< mnt/.jobs/events
        await_pending
        grep -q '^resumed: yes' mnt/.jobs/vda/status
        cmp mnt/vda disk.raw
        ! echo > mnt/.jobs/vda/dismiss 2> said
        grep -q 'busy' said
        ! echo > mnt/.jobs/vda/pause 2> said
        grep -q 'finalize or cancel' mnt/.jobs/vda/error
        echo > mnt/.jobs/vda/finalize
        grep -q '"status": "concluded", "auto-finalize": false' mnt/.jobs/status.json
        ! echo > mnt/.jobs/vda/finalize 2> said
        grep -q 'No such file' said
        echo > mnt/.jobs/vda/dismiss
        cat mnt/.jobs/status.json
        until grep -q null out 2> said; do timeout -s KILL 1 cat <&9 >> out || true; done
        words out
        """)
      #expect(
        words.hasPrefix("[]\n")
          && words.hasSuffix("COMPLETED concluded null"), "\(words)")
      try box.run(
        """
        cmp mnt/vda disk.raw; chainfs unmount mnt; qemu-img check -q top.qcow2 || [ $? = 3 ]
        qemu-img compare -q top.qcow2 disk.raw
        ! qemu-img info top.qcow2 | grep -q '^backing'
        """)
    }

    @Test("a reader that waits does not hold up the end of the mount")
    func end() throws {
      let box = try mounted()
      try box.run(
        """
        cat mnt/.jobs/events > out 2> said & reader=$!
        until ls -l /proc/$reader/fd | grep -q jobs/events; do :; done
        pid=$(chainfs status --pid mnt); umount -l mnt; kill $pid
        until [ ! -d /proc/$pid ] || grep -q "^State:.Z" /proc/$pid/status; do :; done
        wait $reader || true
        qemu-img check -q top.qcow2
        """)
    }
  }
}
