import Chain
import Foundation
import HostSystem
import TestSupport
import Testing

@testable import Control

extension ControlPlane {
  fileprivate func write(_ verb: MountVerb, _ text: String) throws {
    try execute(verb, bytes: Array((text + "\n").utf8))
  }
}

@Suite(
  "Commands to the whole mount", .enabled(if: ToolAvailability.has(["qemu-img", "qemu-io"])),
  .serialized, .timeLimit(.minutes(2)))
struct ControlPlaneMountTests {
  @Test("a refused group snapshot changes nothing, and says why to each device that it names")
  func refusals() throws {
    let place = try makeImages()
    func names() throws -> [String] {
      try FileManager.default.contentsOfDirectory(atPath: place.path).sorted()
    }
    let (a, b, there) = (place.file("a"), place.file("b"), place.file("base.qcow2"))
    try withPlane(in: place) { (plane: ControlPlane) throws in
      // Without the bytes that are allocated, for one of the devices gets a job.
      func chains() throws -> [[Substring]] {
        try ["vda", "vdb"].flatMap { try plane.read(.chain, device: $0).split(separator: "\n") }
          .map { line in
            var fields = line.split(separator: "\t")
            fields.remove(at: 3)
            return fields
          }
      }
      func expect(
        _ kind: FailureKind, _ text: String, _ words: String, told: [String] = ["vda", "vdb"]
      ) throws {
        let files = try names()
        let before = try chains()
        let error = #expect(throws: ControlError.self) { try plane.write(.snapshot, text) }
        #expect(error?.kind == kind, "\(text): \(String(describing: error))")
        #expect(error?.sentence.contains(words) == true, "\(String(describing: error))")
        for device in ["vda", "vdb"] {
          let sentence = try plane.read(.error, device: device)
          let expected = told.contains(device) ? (error?.sentence ?? "none") + "\n" : ""
          #expect(sentence == expected, "\(text): \(device)")
        }
        #expect(try names() == files, "\(text)")
        #expect(try chains() == before)
      }
      try expect(.notFound, "vda=\(a) vdz=\(b)", "no device named vdz", told: ["vda"])
      try expect(.exists, "vda=\(a) vdb=\(there)", "vdb: ")
      try expect(.exists, "vda=\(there) vdb=\(b)", "vda: ")
      try expect(.invalid, "vda=\(a) vdb=\(a)", "the same file")
      try expect(.invalid, "vda=\(a) vdb=relative", "absolute")
      try expect(.unsupported, "vda=\(a) vdb=\(b) format=vmdk", "vmdk")
      try expect(.invalid, "vda", "names no device")
      try plane.write(.stream, "speed=1", device: "vdb")
      try plane.write(.stream, "", device: "vda")
      _ = try? plane.write(.cancel, "", device: "vda")
      #expect(try plane.read(.error, device: "vdb") == "")
      try expect(.busy, "vda=\(a) vdb=\(b)", "vdb: the device has a job already")
      // The first device was let go.
      try plane.write(.snapshot, "vda=\(a)")
      try plane.write(.cancel, "", device: "vdb")
      try plane.write(.snapshot, "vda=\(place.file("c")) vdb=\(b)")
      #expect(try plane.read(.chain).contains("\t\(place.file("c"))\n1\tqcow2\t"))
      #expect(try plane.read(.chain, device: "vdb").contains("\t\(b)\n1\tqcow2\t"))
      for device in ["vda", "vdb"] { #expect(try plane.read(.error, device: device) == "") }
    }
    try withPlane(in: place, isReadOnly: true) { (plane: ControlPlane) throws in
      let error = #expect(throws: ControlError.self) {
        try plane.write(.snapshot, "vda=\(place.file("d")) vdb=\(place.file("e"))")
      }
      #expect(error?.kind == .readOnly)
    }
  }

  @Test("the shared limit is set and read, and a bad one is refused")
  func speed() throws {
    let place = try makeImages()
    try withPlane(in: place) { (plane: ControlPlane) throws in
      #expect(plane.text(of: MountVerb.speed) == "0\n")
      try plane.write(.speed, "1")
      #expect(plane.text(of: MountVerb.speed) == "1\n")
      try plane.write(.stream, "")
      #expect(try plane.read(.speed) == "0\n", "the job's own is another")
      let error = #expect(throws: ControlError.self) { try plane.write(.speed, "much") }
      #expect(error?.kind == .invalid)
      #expect(plane.text(of: MountVerb.speed) == "1\n")
      #expect(try plane.read(.error) == (error?.sentence ?? "") + "\n")
      #expect(try plane.text(of: .status).hasPrefix("Streaming device vda: Completed "))
      // It would take weeks under the old one.
      try plane.write(.speed, "0")
      #expect(try plane.waitText().hasSuffix(": completed\n"))
    }
  }

  @Test("a snapshot tells how it is used")
  func usage() throws {
    let place = try makeImages()
    try withPlane(in: place) { (plane: ControlPlane) throws in
      #expect(
        plane.text(of: MountVerb.snapshot)
          == "DEVICE=PATH... [format=qcow2] [mode=absolute-paths|existing]\n")
    }
  }
}
