import HostSystem
import Testing

@testable import Jobs

private let record = JobRecord(
  image: "sn3.qcow2", base: "/images/b \"1\"\n.qcow2", baseString: "b.qcow2", speed: 1 << 62,
  onError: .enospc, backingFile: nil, isPaused: true, started: 1_700_000_000)

@Suite("JobRecord")
struct JobRecordTests {
  @Test("a record reads back as it was written")
  func roundTrip() throws {
    #expect(try JobRecord(bytes: try record.encoded(), path: "r") == record)
  }

  @Test("a record of the first version reads as it was meant, byte for byte")
  func firstVersion() throws {
    let text = """
      chainfs-job 1 8a98dd1ea54b207d
      {"image":"a","isPaused":false,"onError":"report","speed":5,"started":7}

      """
    let first = try JobRecord(bytes: Array(text.utf8), path: "r")
    #expect(
      first
        == JobRecord(
          image: "a", base: nil, baseString: nil, speed: 5, onError: .report, backingFile: nil,
          isPaused: false, started: 7))
    #expect(first.id == nil && first.autoFinalize == nil && first.autoDismiss == nil)
    #expect(String(decoding: try first.encoded(), as: UTF8.self) == text)
  }

  @Test(
    "what an older program must not overlook makes a record of the second version",
    arguments: [("j", nil, nil), (nil, false, nil), (nil, nil, false), ("j", false, false)]
      as [(String?, Bool?, Bool?)])
  func secondVersion(id: String?, autoFinalize: Bool?, autoDismiss: Bool?) throws {
    var record = record
    record.id = id
    record.autoFinalize = autoFinalize
    record.autoDismiss = autoDismiss
    let bytes = try record.encoded()
    #expect(bytes.starts(with: "chainfs-job 2 ".utf8))
    #expect(try JobRecord(bytes: bytes, path: "r") == record)
  }

  @Test("a record that is cut off anywhere is not followed")
  func torn() throws {
    let bytes = try record.encoded()
    for length in 0..<bytes.count {
      #expect(throws: RecordError.self) { try JobRecord(bytes: Array(bytes[..<length]), path: "r") }
    }
  }

  @Test("a record with any byte changed is not followed")
  func edited() throws {
    let bytes = try record.encoded()
    for place in bytes.indices {
      var changed = bytes
      changed[place] ^= 1
      #expect(throws: RecordError.self) { try JobRecord(bytes: changed, path: "r") }
    }
  }

  @Test(
    "a record of another version is told by its number",
    arguments: [
      ("chainfs-job 2 0123\n{}\n", "checksum"), ("chainfs-job 3 0123\n{}\n", "version 3"),
      ("chainfs-job 4294967295 x\n", "4294967295"),
      ("chainfs-job 42949672960 x\n", "not a job record"),
      ("chainfs-job 0 x\n", "not a job record"),
      ("chainfs-job 3", "not a job record"), ("chainfs-job \n", "not a job record"),
    ])
  func versions(text: String, sentence: String) {
    do {
      _ = try JobRecord(bytes: Array(text.utf8), path: "r")
      Issue.record("it was followed")
    } catch {
      #expect("\(error)".contains(sentence))
    }
  }

  @Test("a file of another kind or size is told by its name")
  func foreign() {
    for bytes in [[], Array("hello\n".utf8), [UInt8](repeating: 0, count: 70_000)] {
      let error = #expect(throws: RecordError.self) { try JobRecord(bytes: bytes, path: "/p/r") }
      #expect(error?.description.contains("/p/r") == true)
      #expect(error?.kind == .corrupt)
    }
  }

  @Test(
    "a record lies beside its image",
    arguments: [
      ("/images/sn3.qcow2", "/images/.sn3.qcow2.chainfs-job"),
      ("sn3.qcow2", ".sn3.qcow2.chainfs-job"), ("/a", "/.a.chainfs-job"),
    ])
  func place(image: String, expected: String) {
    #expect(JobRecord.path(forImage: image) == expected)
  }
}
