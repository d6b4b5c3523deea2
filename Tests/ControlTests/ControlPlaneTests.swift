import Chain
import Foundation
import HostSystem
import TestSupport
import Testing

@testable import Control

/// Two disks over images of qemu-img, and a control plane over them.
///
///     vda   base.qcow2 (64 MiB, 8 MiB of data) <- mid.qcow2 (4 MiB) <- top.qcow2
///     vdb   base.qcow2 <- other.qcow2
func withPlane(
  in place: TemporaryDirectory, isReadOnly: Bool = false, hold: CountingHold = CountingHold(),
  otherHold: CountingHold = CountingHold(), _ body: (ControlPlane) throws -> Void
) throws {
  let disks = try ["vda=top.qcow2", "vdb=other.qcow2"].map { text in
    let parts = text.split(separator: "=").map(String.init)
    return try Disk.open(
      DeviceConfiguration(
        name: parts[0], image: .qcow2(path: place.file(parts[1])), isReadOnly: isReadOnly))
  }
  let plane = ControlPlane(
    disks: disks, holds: [hold, otherHold], time: SystemTimeSource())
  defer {
    plane.close()
    for disk in disks { try? disk.close() }
  }
  try body(plane)
}

func makeImages() throws -> TemporaryDirectory {
  let place = try TemporaryDirectory()
  try runSuccessfully(
    "sh", "-ec",
    """
    cd '\(place.path)'
    qemu-img create -q -f qcow2 base.qcow2 64M
    qemu-io -f qcow2 -c 'write -q -P 1 0 8M' base.qcow2
    qemu-img create -q -f qcow2 -b base.qcow2 -F qcow2 mid.qcow2
    qemu-io -f qcow2 -c 'write -q -P 2 4M 4M' mid.qcow2
    qemu-img create -q -f qcow2 -b mid.qcow2 -F qcow2 top.qcow2
    qemu-img create -q -f qcow2 -b base.qcow2 -F qcow2 other.qcow2
    """)
  return place
}

extension ControlPlane {
  func write(_ verb: ControlVerb, _ text: String, device: String = "vda") throws {
    try execute(verb, device: device, bytes: Array((text + "\n").utf8))
  }

  func read(_ file: DeviceFile, device: String = "vda") throws -> String {
    try text(of: file, device: device)
  }

  func waitText(device: String = "vda") throws -> String {
    let result = Monitor<String?>(nil)
    let wait = try onJobEnd(device: device) { text in result.change { $0 = text } }
    let limit = SystemTimeSource().now().advanced(byMilliseconds: 30_000)
    result.wait(until: limit, while: { $0 == nil })
    wait.cancel()
    return result.withLock { $0 ?? "nothing within half a minute" }
  }
}

@Suite(
  "ControlPlane", .enabled(if: ToolAvailability.has(["qemu-img", "qemu-io"])), .serialized,
  .timeLimit(.minutes(2)))
struct ControlPlaneTests {
  @Test("an idle mount says so everywhere")
  func idle() throws {
    let place = try makeImages()
    try withPlane(in: place) { (plane: ControlPlane) throws in
      #expect(try plane.text(of: .status) == "No active jobs\n")
      #expect(try plane.text(of: .statusJSON) == "[]\n")
      #expect(try plane.read(.status) == "No active jobs\n")
      #expect(try plane.read(.statusJSON) == "{\"job\": null, \"last\": null}\n")
      #expect(try plane.read(.speed) == "0\n")
      #expect(try plane.read(.error) == "")
      #expect(try plane.waitText() == "No active jobs\n")
    }
  }

  @Test("a stream is started, shown, limited, held, cancelled and finished by writes")
  func walk() throws {
    let place = try makeImages()
    try withPlane(in: place) { (plane: ControlPlane) throws in
      try plane.write(.stream, "base=base.qcow2 speed=1")
      #expect(try plane.read(.speed) == "1\n")
      #expect(try plane.text(of: .status).hasPrefix("Streaming device vda: Completed "))
      #expect(
        try plane.text(of: .status).hasSuffix(" of 67108864 bytes, speed limit 1 bytes/s\n"))
      try plane.write(.stream, "speed=2", device: "vdb")
      let lines = try plane.text(of: .status).split(separator: "\n")
      #expect(lines.count == 2 && lines[0].contains("vdb"), "the newest comes first")
      try plane.write(.cancel, "", device: "vdb")
      try plane.write(.pause, "1")
      #expect(try plane.read(.status).contains("\nstate: paused\n"))
      try plane.write(.resume, "")
      try plane.write(.cancel, "")
      #expect(try plane.text(of: .status) == "No active jobs\n")
      #expect(try plane.read(.status).hasPrefix("No active jobs\nstate: cancelled\n"))
      try plane.write(.stream, "base.qcow2")
      #expect(try plane.waitText().hasSuffix(" bytes/s: completed\n"))
      #expect(try plane.read(.chain).split(separator: "\n").count == 2)
    }
  }

  @Test("stop and cont reach what holds the device, and leave its job and texts alone")
  func holds() throws {
    let place = try makeImages()
    let hold = CountingHold()
    try withPlane(in: place, hold: hold) { (plane: ControlPlane) throws in
      try plane.write(.stream, "speed=1")
      let before = try plane.read(.info)
      try plane.write(.stop, "")
      try plane.write(.stop, "1")
      #expect(hold.calls == ["stop", "stop"])
      #expect(try plane.read(.info) == before)
      // Its numbers go on.
      #expect(try plane.read(.status).contains("\nstate: running\n"))
      try plane.write(.cont, "")
      try plane.write(.stop, "", device: "vdb")
      #expect(hold.calls == ["stop", "stop", "cont"])
      hold.refusal = ControlError(kind: .unsupported, sentence: "vda: not here")
      let error = #expect(throws: ControlError.self) { try plane.write(.stop, "") }
      #expect(error?.kind == .unsupported)
      #expect(try plane.read(.error) == "vda: not here\n")
      #expect(throws: ControlError.self) { try plane.write(.cont, "now") }
      #expect(hold.calls == ["stop", "stop", "cont"])
      try plane.write(.cancel, "")
    }
  }

  @Test("a refusal has its kind, and its sentence stays until the next command is carried out")
  func refusals() throws {
    let place = try makeImages()
    func expect(
      _ kind: FailureKind, _ verb: ControlVerb, _ text: String, _ plane: ControlPlane
    ) throws {
      let error = #expect(throws: ControlError.self) { try plane.write(verb, text) }
      #expect(error?.kind == kind, "\(verb) \(text)")
      #expect(try plane.read(.error) == (error?.sentence ?? "none") + "\n")
    }
    try withPlane(in: place) { (plane: ControlPlane) throws in
      try expect(.invalid, .stream, "nope=1", plane)
      try expect(.notFound, .stream, "base=sn9.qcow2", plane)
      for verb in [ControlVerb.cancel, .pause, .resume] { try expect(.notFound, verb, "", plane) }
      try expect(.notFound, .speed, "1M", plane)
      try expect(.invalid, .speed, "fast", plane)
      try expect(.exists, .snapshot, place.file("base.qcow2"), plane)
      try expect(.invalid, .snapshot, "relative.qcow2", plane)
      #expect(try plane.read(.error, device: "vdb") == "")
      try plane.write(.stream, "speed=1")
      #expect(try plane.read(.error) == "")
      try expect(.busy, .stream, "", plane)
      try expect(.busy, .snapshot, place.file("new.qcow2"), plane)
      #expect(!FileManager.default.fileExists(atPath: place.file("new.qcow2")))
      try plane.write(.cancel, "")
      try plane.write(.snapshot, place.file("new.qcow2"))
      #expect(try plane.read(.chain).hasPrefix("0\tqcow2\t67108864\t"))
      #expect(try plane.read(.chain).contains("\t\(place.file("new.qcow2"))\n1\tqcow2\t"))
    }
    let error = #expect(throws: ControlError.self) {
      try withPlane(in: place) { try $0.write(.cancel, "", device: "vdc") }
    }
    #expect(error?.sentence == "no device named vdc (have vda, vdb)")
    try withPlane(in: place, isReadOnly: true) { (plane: ControlPlane) throws in
      try expect(.readOnly, .stream, "", plane)
      try expect(.readOnly, .snapshot, place.file("ro.qcow2"), plane)
      #expect(try plane.read(.info).contains("top.qcow2 (qcow2, read-only)\n"))
    }
  }

  @Test("a job that is to be finalized and dismissed waits for both, and says so")
  func finalizeAndDismiss() throws {
    let place = try makeImages()
    try withPlane(in: place) { (plane: ControlPlane) throws in
      let news = Monitor(0)
      let events = plane.events.subscribe { news.change { $0 += 1 } }
      try plane.write(.stream, "base=base.qcow2 id=job0 auto-finalize=no auto-dismiss=no")
      var lines: [String] = []
      func expectEvent(_ word: String) {
        let limit = SystemTimeSource().now().advanced(byMilliseconds: 30_000)
        while lines.last?.contains(word) != true, SystemTimeSource().now() < limit {
          news.wait(until: limit, while: { _ in !events.hasNext })
          if let line = events.next() { lines.append(line) }
        }
        #expect(lines.last?.contains(word) == true)
      }
      expectEvent("BLOCK_JOB_PENDING")
      #expect(lines.count == 5)
      #expect(try plane.text(of: .statusJSON).contains("\"status\": \"pending\""))
      #expect(try plane.read(.status).contains("\nstate: pending\nid: job0\n"))
      #expect(try plane.read(.chain).split(separator: "\n").count == 3)
      // The other device's jobs share the names.
      let taken = #expect(throws: ControlError.self) {
        try plane.write(.stream, "id=job0", device: "vdb")
      }
      #expect(taken?.kind == .busy)
      try plane.write(.finalize, "")
      expectEvent("concluded")
      #expect(try plane.read(.chain).split(separator: "\n").count == 2)
      #expect(
        try plane.text(of: .status)
          == "Streaming device job0: Completed 67108864 of 67108864 bytes, "
          + "speed limit 0 bytes/s\n")
      #expect(try plane.text(of: .statusJSON).contains("\"status\": \"concluded\""))
      let again = #expect(throws: ControlError.self) { try plane.write(.finalize, "") }
      #expect(again?.kind == .notFound)
      try plane.write(.dismiss, "id=job0")
      expectEvent("\"null\"")
      #expect(try plane.text(of: .status) == "No active jobs\n")
      let gone = #expect(throws: ControlError.self) { try plane.write(.dismiss, "") }
      #expect(gone?.kind == .notFound)
      events.cancel()
    }
  }

  @Test("plan, info and block tell of the disks")
  func texts() throws {
    let place = try makeImages()
    try withPlane(in: place) { (plane: ControlPlane) throws in
      #expect(
        try plane.read(.info) == """
          vda: \(place.file("top.qcow2")) (qcow2)
              Cache mode:       writeback
              Backing file:     \(place.file("mid.qcow2")) (chain depth: 2)

          """)
      let both = try plane.read(.info) + "\n" + plane.read(.info, device: "vdb")
      #expect(try plane.text(of: .block) == both)
      let plan = try plane.read(.plan)
      #expect(plan.hasPrefix("copy: 8388608\nzero: 0\npresent: 58720256\nneeded: "))
      #expect(plan.hasSuffix("\nfits: yes\n"))
    }
  }

  @Test("a job that the mount left goes on at the next, unless its record cannot be followed")
  func resume() throws {
    let place = try makeImages()
    try withPlane(in: place) { try $0.write(.stream, "speed=1") }
    try withPlane(in: place) { (plane: ControlPlane) throws in
      #expect(plane.resumeJobs() == [])
      #expect(try plane.read(.status).contains("\nresumed: yes\n"))
      try plane.write(.speed, "0")
      #expect(try plane.waitText().hasSuffix(": completed\n"))
    }
    try Data("torn".utf8).write(to: URL(fileURLWithPath: place.file(".other.qcow2.chainfs-job")))
    try withPlane(in: place) { (plane: ControlPlane) throws in
      let sentences = plane.resumeJobs()
      #expect(sentences.count == 1)
      #expect(try plane.read(.error, device: "vdb") == sentences[0] + "\n")
    }
  }
}
