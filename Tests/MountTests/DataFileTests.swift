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
  }
}
