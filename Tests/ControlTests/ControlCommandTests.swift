import Chain
import HostSystem
import Jobs
import Testing

@testable import Control

private func command(_ verb: ControlVerb, _ text: String) throws -> ControlCommand {
  try ControlCommand(verb, bytes: Array(text.utf8))
}

@Suite("ControlCommand")
struct ControlCommandTests {
  @Test(
    "a stream is asked for in these forms",
    arguments: [
      ("", StreamRequest()),
      ("\n", StreamRequest()),
      (" \t \r\n", StreamRequest()),
      ("sn1.qcow2\n", StreamRequest(base: "sn1.qcow2")),
      ("base=base.qcow2 speed=200M\n", StreamRequest(base: "base.qcow2", speed: 200 << 20)),
      ("speed=1k  on-error=stop", StreamRequest(speed: 1024, onError: .stop)),
      (
        "base='/my images/b.qcow2' backing-file=\"../my images/b.qcow2\"",
        StreamRequest(base: "/my images/b.qcow2", backingFile: "../my images/b.qcow2")
      ),
      ("'base=x.qcow2'", StreamRequest(base: "base=x.qcow2")),
      ("/images/a=b.qcow2", StreamRequest(base: "/images/a=b.qcow2")),
      ("base=a=b", StreamRequest(base: "a=b")),
      ("a\\ b", StreamRequest(base: "a b")),
      ("'it'\\''s'", StreamRequest(base: "it's")),
      ("\"a\\\"b\\\\c\\d\"", StreamRequest(base: "a\"b\\c\\d")),
      ("on-error=report", StreamRequest(onError: .report)),
      ("on-error=ignore", StreamRequest(onError: .ignore)),
      ("on-error=enospc", StreamRequest(onError: .enospc)),
      ("b\u{e4}se", StreamRequest(base: "b\u{e4}se")),
      ("id=job0", StreamRequest(id: "job0")),
      ("auto-finalize=no auto-dismiss=no", StreamRequest(autoFinalize: false, autoDismiss: false)),
      ("auto-finalize=yes auto-dismiss=yes", StreamRequest()),
    ] as [(String, StreamRequest)])
  func streams(text: String, request: StreamRequest) throws {
    #expect(try command(.stream, text) == .stream(request))
  }

  @Test(
    "these writes are refused as invalid",
    arguments: [
      (.stream, "nope=1"), (.stream, "speed="), (.stream, "speed=-1"), (.stream, "speed=0x10"),
      (.stream, "a b"), (.stream, "base=a base=b"), (.stream, "a base=b"), (.stream, "base="),
      (.stream, "''"), (.stream, "on-error=auto"), (.stream, "on-error=Stop"),
      (.stream, "'open"), (.stream, "\"open"), (.stream, "end\\"), (.stream, "a\nb"),
      (.stream, "\n\n"), (.stream, "a\0b"), (.stream, "backing-file="), (.stream, "Base=a"),
      (.speed, ""), (.speed, "fast"), (.speed, "1 2"), (.speed, "limit=1"), (.speed, "-1"),
      (.cancel, "2"), (.cancel, "now"), (.cancel, "force=1"), (.pause, "0"), (.resume, "yes"),
      (.stop, "0"), (.cont, "speed=1"),
      (.snapshot, ""), (.snapshot, "/a /b"), (.snapshot, "/a mode=x"), (.snapshot, "format=qcow2"),
      (.snapshot, "/a size=1"), (.stream, "auto-finalize=off"), (.stream, "auto-dismiss="),
      (.finalize, "job0"), (.finalize, "id=job0"), (.dismiss, "job0"), (.dismiss, "all=yes"),
    ] as [(ControlVerb, String)])
  func refusals(verb: ControlVerb, text: String) {
    let error = #expect(throws: ControlError.self) { try command(verb, text) }
    #expect(error?.kind == .invalid)
    #expect(error?.sentence.isEmpty == false)
  }

  @Test("verbs without arguments take an empty line or a 1", arguments: ["", "\n", "1", "1\n"])
  func bareVerbs(text: String) throws {
    #expect(try command(.cancel, text) == .cancel)
    #expect(try command(.pause, text) == .pause)
    #expect(try command(.resume, text) == .resume)
    #expect(try command(.finalize, text) == .finalize)
    #expect(try command(.dismiss, text) == .dismiss(id: nil))
    #expect(try command(.stop, text) == .stop)
    #expect(try command(.cont, text) == .cont)
  }

  @Test("a dismissal may name its job")
  func dismissals() throws {
    #expect(try command(.dismiss, "id=job0\n") == .dismiss(id: "job0"))
  }

  @Test("a speed is one size")
  func speeds() throws {
    #expect(try command(.speed, "50M\n") == .speed(50 << 20))
    #expect(try command(.speed, "0") == .speed(0))
  }

  @Test("a snapshot has a path, and perhaps a format and a mode")
  func snapshots() throws {
    #expect(
      try command(.snapshot, "/i/sn4.qcow2\n")
        == .snapshot(path: "/i/sn4.qcow2", format: "qcow2", mode: .absolutePaths))
    #expect(
      try command(.snapshot, "'/i/my disk' mode=existing format=raw")
        == .snapshot(path: "/i/my disk", format: "raw", mode: .existing))
  }

  @Test("a command has at most 4095 bytes, the newline included", arguments: [4094, 4095, 4096])
  func length(count: Int) {
    let bytes = Array("base=".utf8) + [UInt8](repeating: UInt8(ascii: "a"), count: count - 6) + [10]
    if count <= 4095 {
      #expect(throws: Never.self) { try ControlCommand(.stream, bytes: bytes) }
    } else {
      #expect(throws: ControlError.self) { try ControlCommand(.stream, bytes: bytes) }
    }
  }

  @Test(
    "bytes that are not UTF-8 are refused",
    arguments: [[0xff], [0xc3], [0xed, 0xa0, 0x80], [0x61, 0x80]] as [[UInt8]])
  func encoding(bytes: [UInt8]) {
    #expect(throws: ControlError.self) { try ControlCommand(.stream, bytes: bytes) }
  }
}
