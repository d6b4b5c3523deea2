import Chain
import HostSystem
import Jobs
import Testing

@testable import Control

@Suite("MountCommand")
struct MountCommandTests {
  private func command(_ verb: MountVerb, _ text: String) throws -> MountCommand {
    try MountCommand(verb, bytes: Array(text.utf8))
  }

  @Test("a group snapshot has devices with paths, and perhaps a format and a mode")
  func snapshots() throws {
    #expect(
      try command(.snapshot, "vda=/p/a.qcow2 vdb='/p/b c.qcow2'\n")
        == .snapshot(
          paths: ["vda": "/p/a.qcow2", "vdb": "/p/b c.qcow2"], format: "qcow2",
          mode: .absolutePaths))
    #expect(
      try command(.snapshot, "mode=existing vda=/p/a format=raw")
        == .snapshot(paths: ["vda": "/p/a"], format: "raw", mode: .existing))
  }

  @Test("every name of a device is a key, also those of options")
  func names() throws {
    for name in ["0", "_x", "a.b-c_9", "mode", "format", "X"] {
      #expect(
        try command(.snapshot, "\(name)=/p/a vda=/p/b")
          == .snapshot(
            paths: [name: "/p/a", "vda": "/p/b"], format: "qcow2", mode: .absolutePaths))
    }
    // Elsewhere such words stay what they were.
    #expect(
      try ControlCommand(.stream, bytes: Array("_x=1".utf8))
        == .stream(.init(base: "_x=1")))
  }

  @Test(
    "what is not a device with a path is refused",
    arguments: [
      "", "mode=existing", "/p/a", "vda=/p/a /p/b", "vda=/p/a vda=/p/b", "vda=/p/a mode=other",
      "-x=/p/a", ".x=/p/a", "vda=/p/a mode=existing mode=existing", "'vda=/p/a'",
    ])
  func refused(text: String) {
    let error = #expect(throws: ControlError.self) { try command(.snapshot, text) }
    #expect(error?.kind == .invalid)
  }

  @Test("the shared speed is one size")
  func speeds() throws {
    #expect(try command(.speed, "50M\n") == .speed(50 << 20))
    #expect(try command(.speed, "0") == .speed(0))
    for text in ["", "fast", "-1", "1 2", "vda=1"] {
      #expect(throws: ControlError.self, "\(text)") { try command(.speed, text) }
    }
  }
}
