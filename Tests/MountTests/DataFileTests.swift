import Foundation
import TestSupport
import Testing

extension MountTests {
  @Suite("External data files", .serialized, .timeLimit(.minutes(4)))
  struct DataFileTests {
    /// A data file that is not opened: what is prepared, and words of the sentence.
    struct Case: CustomTestStringConvertible {
      var testDescription: String
      var prepare: String
      var command = "chainfs mount vda=$PWD/a.qcow2 mnt"
      var words: [String]
    }

    /// Gives `a.qcow2` a data file name of as many bytes as `d.raw` has.
    private static func rename(_ name: String) -> String {
      "LC_ALL=C sed -i 's/d\\.raw/\(name)/' a.qcow2"
    }

    static let cases: [Case] = [
      Case(
        testDescription: "not there", prepare: "rm d.raw",
        words: ["a.qcow2 needs the data file", "/d.raw, which does not exist"]),
      Case(
        testDescription: "not named", prepare: "LC_ALL=C sed -i 's/DATA/data/' a.qcow2",
        words: ["a.qcow2: 'data-file' is required for this image"]),
      Case(
        testDescription: "another protocol", prepare: rename("nbd:x"),
        words: ["the data file nbd:x of", "only files"]),
      Case(
        testDescription: "the image itself",
        prepare: "rm d.raw; ln -s a.qcow2 d.raw", words: ["data file d.raw", "chain already"]),
      Case(
        testDescription: "in use", prepare: "",
        command: """
          mkfifo pipe; qemu-io -f raw d.raw < pipe > /dev/null & exec 9> pipe
          until grep -q ":$(stat -c %i d.raw) " /proc/locks; do :; done
          chainfs mount vda=a.qcow2 mnt
          """,
        words: ["d.raw", "lock"]),
      Case(
        testDescription: "outside of backing-root",
        prepare: """
          mkdir sub other && mv a.qcow2 sub && mv d.raw other && ln -s ../other/d.raw sub/d.raw
          qemu-img create -q -u -f qcow2 -b sub/a.qcow2 -F qcow2 top.qcow2 4M
          """,
        command: "chainfs mount -o backing-root=$PWD/sub vda=top.qcow2 mnt",
        words: ["other/d.raw lies outside of", "/sub"]),
    ]

    @Test(
      "a data file that may not be used has its sentence, and nothing is mounted", arguments: cases)
    func refused(item: Case) throws {
      let box = try Sandbox()
      try box.run("qemu-img create -q -f qcow2 -o data_file=d.raw a.qcow2 4M\n" + item.prepare)
      let outcome = try box.tryRun(item.command)
      #expect(outcome.status == 1)
      for word in item.words {
        #expect(outcome.errorOutput.contains(word), "\(outcome.errorOutput)")
      }
      #expect(try box.run("ls mnt") == "")
    }

    @Test("info tells the data file as qemu-img does", arguments: ["off", "on"])
    func info(raw: String) throws {
      let box = try Sandbox()
      try box.run("qemu-img create -q -f qcow2 -o data_file=d.raw,data_file_raw=\(raw) a.qcow2 4M")
      let text = try box.run("chainfs info a.qcow2 | grep '^data file'")
      #expect(text == "data file: d.raw\ndata file raw: \(raw == "on")")
      let json = try box.run("chainfs info --json a.qcow2")
      let object = try #require(
        JSONSerialization.jsonObject(with: Data(json.utf8)) as? [String: Any])
      let specific = try #require(object["format-specific"] as? [String: Any])
      let data = try #require(specific["data"] as? [String: Any])
      #expect(data["data-file"] as? String == "d.raw")
      #expect(data["data-file-raw"] as? Bool == (raw == "on"))
    }

    /// Changes `mnt/vda` and the file `model` in the same way, by bytes, zeroes and discards.
    static let change = """
      change() {
        head -c 1500007 /dev/urandom > noise
        for to in mnt/vda model; do
          dd if=noise of=$to bs=300001 seek=$1 conv=notrunc 2>/dev/null
          dd if=noise of=$to bs=13 count=1 seek=$((123456 + $1)) conv=notrunc 2>/dev/null
          fallocate -p -o $(($1 * 1000000)) -l 300k $to
          dd if=/dev/zero of=$to bs=1000 seek=$((100 * $1)) count=250 conv=notrunc 2>/dev/null
        done
        fallocate -z -o $((8000000 + $1 * 70000)) -l 100k mnt/vda
        head -c 100k /dev/zero |
          dd of=model bs=1000 seek=$((8000 + $1 * 70)) conv=notrunc 2>/dev/null
        cmp mnt/vda model
      }

      """

    @Test(
      "a disk on a data file holds what is written, and a raw one is the disk itself",
      arguments: ["off", "on"], ["", ",cluster_size=4k", ",extended_l2=on"])
    func active(raw: String, options: String) throws {
      let box = try Sandbox()
      try box.run(
        Self.change + """
          qemu-img create -q -f qcow2 -o data_file=d.raw,data_file_raw=\(raw)\(options) a.qcow2 12M
          qemu-io -f qcow2 -c 'write -q -P 5 100k 2M' a.qcow2
          qemu-img convert -O raw a.qcow2 model
          chainfs mount vda=a.qcow2 mnt
          cmp mnt/vda model
          ! qemu-io -f raw -c 'write -q 0 512' d.raw
          change 1; change 3; change 5
          sync mnt/vda
          [ \(raw) = off ] || cmp d.raw model
          chainfs unmount mnt
          qemu-io -f raw -c 'read -q 0 512' d.raw
          qemu-img check -q a.qcow2; chainfs check a.qcow2
          qemu-img compare -q -f qcow2 -F raw a.qcow2 model
          [ \(raw) = off ] || cmp d.raw model
          qemu-img info a.qcow2 | grep -q 'data file raw: \(raw == "on")'
          """)
    }

    @Test("a snapshot turns a disk on a data file into a layer, and a stream brings it up")
    func snapshot() throws {
      let box = try Sandbox()
      try box.run(
        Self.change + """
          qemu-img create -q -f qcow2 -o data_file=d.raw,data_file_raw=on a.qcow2 12M
          truncate -s 12M model
          chainfs mount vda=a.qcow2 mnt
          change 1
          chainfs snapshot mnt/vda $PWD/b.qcow2
          sha256sum d.raw > sums
          change 3
          ! qemu-io -f raw -c 'write -q 0 512' d.raw
          chainfs stream --wait mnt/vda
          cmp mnt/vda model
          qemu-io -f raw -c 'read -q 0 512' d.raw
          sha256sum --quiet -c sums
          qemu-io -f raw -c 'write -q 0 512' d.raw
          chainfs unmount mnt
          qemu-img check -q b.qcow2
          qemu-img compare -q -f qcow2 -F raw b.qcow2 model
          """)
    }

    @Test("a stream into a disk on a data file writes there, over a layer with one of its own")
    func stream() throws {
      let box = try Sandbox()
      try box.run(
        Self.change + """
          qemu-img create -q -f qcow2 -o data_file=d.raw a.qcow2 12M
          qemu-io -f qcow2 -c 'write -q -P 5 100k 2M' -c 'write -q -P 6 9M 3M' a.qcow2
          qemu-img create -q -f qcow2 -o data_file=e.raw -b a.qcow2 -F qcow2 b.qcow2
          qemu-img convert -O raw b.qcow2 model
          chainfs mount vda=b.qcow2 mnt
          change 2
          chainfs stream --wait mnt/vda
          change 4
          chainfs unmount mnt
          qemu-img check -q a.qcow2; qemu-img check -q b.qcow2
          qemu-img compare -q -f qcow2 -F raw b.qcow2 model
          ! qemu-img info b.qcow2 | grep '^backing'
          """)
    }

    @Test("an encrypted disk on a data file is encrypted there")
    func encrypted() throws {
      let box = try Sandbox()
      try box.run(
        Self.change + EncryptionTests.prologue + """
          OPTIONS=,data_file=d.raw
          luks a.qcow2 12M
          io a.qcow2 -c 'write -q -P 0 0 12M' -c 'write -q -P 5 100k 2M'
          truncate -s 12M model
          head -c 2M /dev/zero | tr '\\0' '\\5' | dd of=model bs=100k seek=1 conv=notrunc 2>/dev/null
          chainfs mount -o secret=secret vda=a.qcow2 mnt
          cmp mnt/vda model
          change 1
          chainfs unmount mnt
          compare a.qcow2 model
          chainfs check a.qcow2
          """)
    }
  }
}
