import TestSupport
import Testing

extension MountTests {
  /// Every pair of chainfs and a program of QEMU, or of two chainfs, on one image: who has it first, who
  /// asks for it, and as what. The rule is short. An image has one writer and nobody else, or readers;
  /// being a layer is reading.
  ///
  /// QEMU's own readers of raw files and its users of data files share them with writers. That is
  /// theirs to decide, and shows where the table departs from the rule.
  @Suite("Locks", .serialized, .timeLimit(.minutes(6)))
  struct LockTests {
    static let holders = [
      "chainfs-rw", "chainfs-ro", "chainfs-over", "nbd-rw", "nbd-ro", "nbd-over", "io-rw", "io-ro",
    ]
    static let writers: Set = [
      "chainfs-rw", "nbd-rw", "io-rw", "resize", "snapshot", "rebase", "chainfs-repair",
      "chainfs-data", "io-data",
    ]

    /// One form of image, who asks for it, and where QEMU lets in whom the rule would refuse.
    struct Form: CustomTestStringConvertible {
      var name: String
      var askers = ["chainfs-rw", "chainfs-ro", "chainfs-over", "io-rw", "io-ro", "io-over"]
      /// `qemu-img bench` takes no secret.
      var holders = LockTests.holders + ["bench"]
      var shared: Set<String> = []
      var testDescription: String { name }
    }

    static let forms = [
      Form(
        name: "qcow2",
        askers: [
          "chainfs-rw", "chainfs-ro", "chainfs-over", "chainfs-info", "chainfs-check",
          "chainfs-repair", "chainfs-map", "io-rw", "io-ro", "io-over", "convert", "resize",
          "snapshot", "rebase", "check", "info",
        ]),
      Form(name: "luks", holders: holders),
      Form(
        name: "data",
        askers: ["chainfs-rw", "chainfs-ro", "chainfs-over", "chainfs-data", "io-rw", "io-data"]),
      Form(
        name: "raw",
        shared: [
          "chainfs-rw io-ro", "chainfs-rw io-over", "nbd-over chainfs-rw", "io-ro chainfs-rw",
          "bench chainfs-rw",
        ]),
    ]

    /// Starts each holder in turn, has all ask who are given behind the form, and prints for each
    /// `HOLDER ASKER STATUS PID-OF-HOLDER LAST-LINE`. What no chainfs takes part in is left out.
    static let script = #"""
      secret=(); options=; prefix=; format=qcow2; create=(-f qcow2); key=
      case $form in
      luks)
        secret=(--object secret,id=s,data=abc); key=encrypt.key-secret=s
        create+=("${secret[@]}" -o encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10)
        printf abc > key; options=,secret=$PWD/key ;;
      data) create+=(-o data_file=img.data) ;;
      raw) create=(-f raw); prefix=raw:; format=raw ;;
      esac
      again qemu-img create -q "${create[@]}" img 4M
      case $form in qcow2) qemu-img snapshot -c kept img ;; esac
      image="driver=$format,file.filename=img${key:+,$key}"
      overlay="driver=qcow2${key:+,backing.$key},file.filename="
      for name in ov1 ov2; do qemu-img create -q -u -f qcow2 -b img -F $format $name 4M; done
      mkdir other

      # QEMU takes its locks byte by byte and file by file; who has spoken has them all.
      told() { exec stdbuf -oL "$@" > begun; }
      begin=(-c 'read 0 512' -c 'sleep 1000000')

      hold() {
        rm -f begun
        case $1 in
        chainfs-rw) chainfs mount -o rw$options vda=${prefix}img mnt ;;
        chainfs-ro) chainfs mount -o ro$options vda=${prefix}img mnt ;;
        chainfs-over) chainfs mount -o rw$options vda=ov1 mnt ;;
        nbd-rw) qemu-nbd "${secret[@]}" --image-opts -k "$PWD/s" -t "$image" & ;;
        nbd-ro) qemu-nbd -r "${secret[@]}" --image-opts -k "$PWD/s" -t "$image" & ;;
        nbd-over) qemu-nbd "${secret[@]}" --image-opts -k "$PWD/s" -t "${overlay}ov1" & ;;
        io-rw) told qemu-io "${secret[@]}" --image-opts "${begin[@]}" "$image" & ;;
        io-ro) told qemu-io -r "${secret[@]}" --image-opts "${begin[@]}" "$image" & ;;
        bench) told qemu-img bench -c 1000000000 --image-opts "$image" & ;;
        esac
        pid=$!
        case $1 in chainfs*) pid=$(chainfs status --pid mnt) ;; esac
        case $1 in
        nbd*) until qemu-nbd -L -k "$PWD/s"; do kill -0 $pid || return 1; done ;;
        io*|bench) until [ -s begun ]; do kill -0 $pid || return 1; done ;;
        esac
        # It reads as fast as it can; that it reads is enough.
        case $1 in bench) kill -STOP $pid ;; esac
      } > /dev/null 2> held

      release() {
        case $1 in chainfs*) chainfs unmount mnt ;; *) kill -9 $pid; wait $pid ;; esac
      } 2> /dev/null

      ask() {
        case $1 in
        chainfs-rw) chainfs mount -o rw$options vda=${prefix}img other && chainfs unmount other ;;
        chainfs-ro) chainfs mount -o ro$options vda=${prefix}img other && chainfs unmount other ;;
        chainfs-over) chainfs mount -o rw$options vda=ov2 other && chainfs unmount other ;;
        chainfs-data) chainfs mount -o rw vda=raw:img.data other && chainfs unmount other ;;
        chainfs-info) chainfs info img ;;
        chainfs-check) chainfs check img ;;
        chainfs-repair) chainfs check --repair leaks img ;;
        chainfs-map) chainfs map img ;;
        io-rw) qemu-io "${secret[@]}" --image-opts -c 'write -q 0 512' "$image" ;;
        io-ro) qemu-io -r "${secret[@]}" --image-opts -c 'read -q 0 512' "$image" ;;
        io-over) qemu-io "${secret[@]}" --image-opts -c 'read -q 0 512' "${overlay}ov2" ;;
        io-data) qemu-io -f raw -c 'write -q 0 512' img.data ;;
        convert) qemu-img convert "${secret[@]}" --image-opts "$image" -O raw out ;;
        resize) qemu-img resize -q "${secret[@]}" --image-opts "$image" 4M ;;
        snapshot) qemu-img snapshot -c more img && qemu-img snapshot -d more img ;;
        rebase) qemu-img rebase -u -b '' img ;;
        check) qemu-img check -q img ;;
        info) qemu-img info img ;;
        esac
      }

      for holder in $holders; do
        hold $holder || { echo "$holder did not start: $(cat held)"; exit 1; }
        for asker in $askers; do
          case "$holder $asker" in *chainfs*) ;; *) continue ;; esac
          ask $asker > said 2>&1
          echo "$holder $asker $? $pid $(tail -n 1 said)"
        done
        release $holder
      done
      exit 0
      """#

    @Test("an image has one writer or readers, whoever comes first", arguments: forms)
    func pairs(form: Form) throws {
      let box = try Sandbox()
      let outcome = try box.tryRun(
        """
        form=\(form.name) holders='\(form.holders.joined(separator: " "))'
        askers='\(form.askers.joined(separator: " "))'
        \(Self.script)
        """, seconds: 200)
      var seen = 0
      for line in outcome.output.split(separator: "\n") {
        let words = line.split(separator: " ", maxSplits: 4).map(String.init)
        guard words.count >= 4 else {
          Issue.record("\(line)")
          continue
        }
        let (holder, asker) = (words[0], words[1])
        let sentence = words.count > 4 ? words[4] : ""
        seen += 1
        let meets = Self.writers.contains(holder) || Self.writers.contains(asker)
        let isRefused = meets && !form.shared.contains("\(holder) \(asker)")
        #expect((words[2] != "0") == isRefused, "\(line)")
        guard isRefused else { continue }
        if asker.hasPrefix("chainfs") {
          let command =
            holder.hasPrefix("chainfs")
            ? "chainfs"
            : holder.hasPrefix("nbd") ? "qemu-nbd" : holder == "bench" ? "qemu-img" : "qemu-io"
          let holding = "lock, it is in use by \(command) (pid \(words[3]))"
          #expect(sentence.contains(holding), "\(line)")
        } else {
          #expect(sentence.contains("Is another process using the image"), "\(line)")
        }
      }
      let ours = form.askers.count { $0.hasPrefix("chainfs") }
      #expect(seen == 3 * form.askers.count + (form.holders.count - 3) * ours, "\(outcome)")
      #expect(outcome.status == 0, "\(outcome)")
    }

    @Test("a snapshot opens the image below to readers, and a stream gives it back to everybody")
    func changes() throws {
      let box = try Sandbox()
      try box.run(
        """
        qemu-img create -q -f qcow2 a 4M; chainfs mount vda=a mnt
        refused() { "$@" > said 2>&1 && exit 1; grep -q lock said; }
        reads() { qemu-io -r -f qcow2 -c 'read -q 0 4k' $1; }
        writes() { qemu-io -f qcow2 -c 'write -q 0 4k' $1; }
        refused reads a; refused writes a
        echo $PWD/b > mnt/.jobs/vda/snapshot
        reads a; refused writes a; refused reads b; refused writes b
        # Somebody who reads the layer below stays in nobody's way.
        qemu-nbd -r -f qcow2 -k $PWD/s -t a > /dev/null 2>&1 & reader=$!
        until qemu-nbd -L -k $PWD/s > /dev/null 2>&1; do kill -0 $reader; done
        chainfs stream --wait mnt/vda
        kill -9 $reader; wait $reader || true
        writes a; refused reads b
        chainfs unmount mnt; writes b
        """)
    }
  }
}
