import Foundation
import TestSupport
import Testing

extension MountTests {
  @Suite("Encrypted images", .serialized, .timeLimit(.minutes(4)))
  struct EncryptionTests {
    /// Shell functions: `luks` makes an encrypted image, `opened NAME` are the words by which QEMU's
    /// tools open one, `io NAME` and `compare NAME RAW` are such tools.
    static let prologue = """
      printf 'p\\303\\244ss\\n' > secret
      luks() { again qemu-img create -q -f qcow2 --object secret,id=s,file=secret \
        -o encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10$OPTIONS "$@"; }
      opened() { echo --object secret,id=s,file=secret --image-opts \
        driver=qcow2,encrypt.key-secret=s,file.filename=$1; }
      io() { local words; words=$(opened $1); shift; qemu-io "$@" $words; }
      compare() { qemu-img compare -q $(opened $1) driver=raw,file.filename=$2; }

      """

    /// Where the next function keeps what it made, until the tests end.
    private static let templates: Result<TemporaryDirectory, any Error> = Result {
      atexit {
        if let place = try? EncryptionTests.templates.get().path {
          try? FileManager.default.removeItem(atPath: place)
        }
      }
      return try TemporaryDirectory()
    }

    /// `encrypted NAME [BACKING]` gives an empty encrypted image of 24M. QEMU measures the processor for
    /// seconds before it makes a key, so each kind is made once, and copied.
    ///
    /// Those with the same $OPTIONS and secret have the same key. Two of one chain need different
    /// options: else nobody notices when one is read with the other's key.
    private static let copying = """
      encrypted() {
        local kept=$TEMPLATES/$(echo "$OPTIONS" | cat - secret | sha256sum | cut -c 1-64)
        if [ ! -e $kept ]; then luks $kept.new 24M; mv $kept.new $kept; fi
        cp $kept $1
        [ $# = 1 ] || qemu-img rebase -u $(opened $1) -b $2 -F qcow2
      }

      """

    private func run(_ box: Sandbox, _ script: String) throws -> String {
      let templates = try Self.templates.get().path
      return try box.run("TEMPLATES=\(templates)\n" + Self.prologue + Self.copying + script)
    }

    private static let options = [
      "", ",cluster_size=4k", ",encrypt.cipher-alg=aes-128", ",compat=0.10",
      ",encrypt.cipher-mode=cbc,encrypt.ivgen-alg=essiv,encrypt.ivgen-hash-alg=sha256",
      ",encrypt.cipher-mode=cbc,encrypt.hash-alg=sha512",
    ]

    @Test(
      "an encrypted chain reads, takes writes and is streamed, and QEMU agrees",
      arguments: options.indices)
    func chain(index: Int) throws {
      // Of two kinds, so that each has a key of its own; each kind is above once, and below once.
      let top = Self.options[index]
      let base = Self.options[(index + 1) % Self.options.count]
      let box = try Sandbox()
      _ = try run(
        box,
        """
        OPTIONS='\(base)' encrypted base.qcow2
        io base.qcow2 -c 'write -q -P 1 1000k 3M' -c 'write -q -P 2 20M 1234'
        OPTIONS='\(top)' encrypted top.qcow2 base.qcow2
        chainfs mount -o secret=secret vda=top.qcow2 mnt
        truncate -s 24M model
        head -c 3M /dev/zero | tr '\\0' '\\1' | dd of=model bs=1000k seek=1 conv=notrunc 2>/dev/null
        head -c 1234 /dev/zero | tr '\\0' '\\2' | dd of=model bs=1M seek=20 conv=notrunc 2>/dev/null
        cmp mnt/vda model
        head -c 2000003 /dev/urandom > noise
        for to in mnt/vda model; do
          dd if=noise of=$to bs=777777 seek=3 conv=notrunc 2>/dev/null
          dd if=noise of=$to bs=13 count=1 seek=12345 conv=notrunc 2>/dev/null
          echo 'guest bytes in plain' | dd of=$to bs=9 seek=54321 conv=notrunc 2>/dev/null
          fallocate -p -o 1M -l 300k $to
          fallocate -z -o 2222222 -l 5000 $to 2>/dev/null ||
            dd if=/dev/zero of=$to bs=2 seek=1111111 count=2500 conv=notrunc 2>/dev/null
        done
        cmp mnt/vda model
        chainfs stream --wait mnt/vda
        dd if=noise of=mnt/vda bs=7 count=3 seek=77 conv=notrunc 2>/dev/null
        dd if=noise of=model bs=7 count=3 seek=77 conv=notrunc 2>/dev/null
        cmp mnt/vda model
        chainfs unmount mnt
        qemu-img check -q $(opened top.qcow2)
        compare top.qcow2 model
        chainfs check top.qcow2
        grep -q 'guest bytes in plain' model
        ! grep -q 'guest bytes in plain' top.qcow2
        """)
    }

    @Test("a secret that is missing, wrong or no text has its sentence, and nothing is mounted")
    func refused() throws {
      let box = try Sandbox()
      _ = try run(box, "encrypted a.qcow2; printf 'p\\303\\244ss' > near; printf 'a\\0b' > nul")
      for (options, words) in [
        ("", "-o secret=FILE"), ("-o secret=near", "key slots"), ("-o secret=nul", "UTF-8"),
        ("-o secret=nowhere", "nowhere"),
      ] {
        let outcome = try box.tryRun("chainfs mount \(options) vda=a.qcow2 mnt < /dev/null")
        #expect(outcome.status == 1, "\(options)")
        #expect(outcome.errorOutput.contains(words), "\(options): \(outcome.errorOutput)")
        #expect(try box.run("ls mnt") == "")
      }
      try box.run(
        """
        qemu-img create -q -f qcow2 -b a.qcow2 -F qcow2 plain.qcow2 24M
        ! chainfs mount vda=plain.qcow2 mnt 2> sentence
        grep -q 'a.qcow2.*secret=FILE' sentence
        """)
    }

    @Test("info, check and map need no secret")
    func withoutSecret() throws {
      let box = try Sandbox()
      _ = try run(box, "encrypted a.qcow2; io a.qcow2 -c 'write -q -P 1 64k 64k'")
      #expect(try box.run("chainfs info a.qcow2").contains("encrypted: yes"))
      let ours = try box.run("chainfs info --json a.qcow2")
      let theirs = try box.run("qemu-img info --output=json a.qcow2")
      #expect(try encryption(ours) == encryption(theirs))
      try box.run("chainfs check a.qcow2")
      let map = try box.run("chainfs map --json a.qcow2")
      #expect(map.contains(#""start":65536"#) || map.contains(#""start": 65536"#), "\(map)")
    }

    /// What is said of encryption, as text that does not depend on the order of members.
    private func encryption(_ json: String) throws -> String {
      let object = try #require(
        JSONSerialization.jsonObject(with: Data(json.utf8)) as? [String: Any])
      let specific = try #require(object["format-specific"] as? [String: Any])
      let data = try #require(specific["data"] as? [String: Any])
      let encrypt = try #require(data["encrypt"])
      let text = try JSONSerialization.data(withJSONObject: encrypt, options: [.sortedKeys])
      return "\(object["encrypted"] ?? "nothing") " + String(decoding: text, as: UTF8.self)
    }

    @Test("the secret is asked for on a terminal, and comes from a pipe too")
    func asked() throws {
      let box = try Sandbox()
      _ = try run(
        box,
        """
        printf pw > secret
        encrypted a.qcow2
        (until grep -q Secret log 2>/dev/null; do :; done; printf 'pw\\n'; until [ -e done ]; do :; done) |
          (script -qfec 'chainfs mount vda=a.qcow2 mnt' log > /dev/null; touch done)
        test -e mnt/vda
        ! grep -q pw log
        chainfs unmount mnt
        chainfs mount -o secret=/dev/stdin vda=a.qcow2 mnt < secret
        chainfs unmount mnt
        """)
    }

    @Test("compressed clusters, and preallocated ones that nobody wrote, read as in QEMU")
    func oddClusters() throws {
      let box = try Sandbox()
      _ = try run(
        box,
        """
        encrypted a.qcow2
        io a.qcow2 -c 'write -q -c -P 7 0 64k' -c 'write -q -P 3 64k 64k'
        OPTIONS=,preallocation=metadata encrypted b.qcow2
        for name in a b; do
          qemu-img convert -O raw $(opened $name.qcow2) $name.raw
        done
        chainfs mount -o secret=secret,growable vda=a.qcow2 vdb=b.qcow2 mnt
        cmp mnt/vda a.raw; cmp mnt/vdb b.raw
        truncate -s 28M mnt/vda a.raw
        for to in mnt/vda a.raw; do
          echo text | dd of=$to bs=1000 seek=3 conv=notrunc 2>/dev/null
          echo text | dd of=$to bs=1000 seek=27777 conv=notrunc 2>/dev/null
        done
        chainfs unmount mnt
        compare a.qcow2 a.raw
        """)
    }

    @Test("a snapshot of an encrypted disk is plain, or an encrypted one that is there already")
    func snapshots() throws {
      let box = try Sandbox()
      _ = try run(
        box,
        """
        encrypted a.qcow2
        chainfs mount -o secret=secret vda=a.qcow2 mnt
        head -c 100000 /dev/urandom > noise
        dd if=noise of=mnt/vda bs=1000 seek=5 conv=notrunc 2>/dev/null
        chainfs snapshot mnt/vda $PWD/b.qcow2
        ! chainfs info b.qcow2 -U | grep encrypted
        dd if=noise of=mnt/vda bs=1000 seek=505 conv=notrunc 2>/dev/null
        cp mnt/vda model
        chainfs stream --wait mnt/vda
        cmp mnt/vda model
        chainfs unmount mnt
        qemu-img compare -q b.qcow2 model
        OPTIONS=,cluster_size=4k encrypted c.qcow2 a.qcow2
        chainfs mount -o secret=secret vda=a.qcow2 mnt
        chainfs snapshot --mode existing mnt/vda $PWD/c.qcow2
        dd if=noise of=mnt/vda bs=1000 seek=1505 conv=notrunc 2>/dev/null
        cp mnt/vda model
        chainfs stream --wait mnt/vda
        cmp mnt/vda model
        chainfs unmount mnt
        compare c.qcow2 model
        """)
    }
  }
}
