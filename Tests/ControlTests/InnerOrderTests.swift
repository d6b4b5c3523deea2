import Chain
import Glibc
import HostSystem
import TestSupport
import Testing

@testable import Control

/// Streams into layers below the active image, as QMP orders them.
@Suite(
  "Orders of streams into layers", .enabled(if: ToolAvailability.has(["qemu-img", "qemu-io"])),
  .timeLimit(.minutes(2)))
struct InnerOrderTests {
  /// Seven layers with a mebibyte each, `#vda.6` being the active image.
  private func withPlane(_ body: (ControlPlane) throws -> Void) throws {
    let place = try TemporaryDirectory()
    try runSuccessfully(
      "sh", "-ec",
      """
      cd '\(place.path)'
      qemu-img create -q -f qcow2 l0 16M
      for n in 0 1 2 3 4 5 6; do
        [ $n = 0 ] || qemu-img create -q -f qcow2 -b l$((n - 1)) -F qcow2 l$n
        qemu-io -f qcow2 -c "write -q -P 1$n ${n}M 1M" l$n
      done
      """)
    let disk = try Disk.open(
      DeviceConfiguration(name: "vda", image: .qcow2(path: place.file("l6"))))
    let plane = ControlPlane(disks: [disk], holds: [CountingHold()], time: SystemTimeSource())
    defer {
      plane.close()
      try? disk.close()
    }
    try body(plane)
  }

  /// Why a stream is refused that is to be slow and never ends; nil if it runs.
  private func refusal(
    _ plane: ControlPlane, _ target: String, base: String?, id: String = "x"
  ) -> ControlRule? {
    var order = StreamOrder(device: target)
    (order.jobID, order.baseNode, order.speed) = (id, base, 1)
    do {
      try plane.stream(order)
      return nil
    } catch { return error.rule ?? .badFormat(error.sentence) }
  }

  @Test("a job has the layers from its target to the one above its base, and no other gets them")
  func overlap() throws {
    try withPlane { plane in
      #expect(refusal(plane, "#vda.4", base: "#vda.2", id: "j4") == nil)
      for (target, base, busy) in [
        ("#vda.4", nil, "#vda.4"), ("#vda.4", "#vda.2", "#vda.4"), ("#vda.5", "#vda.2", "#vda.4"),
        ("#vda.3", "#vda.2", "#vda.3"), ("#vda.3", nil, "#vda.3"), ("vda", "#vda.3", "#vda.4"),
        ("vda", nil, "#vda.4"), ("#vda.5", "#vda.3", "#vda.4"),
      ] as [(String, String?, String)] {
        #expect(
          refusal(plane, target, base: base) == .busy(device: busy),
          "\(target) to \(base ?? "none")")
      }
      // The base of one is the target of the next, and the other way round.
      #expect(refusal(plane, "#vda.2", base: "#vda.0", id: "j2") == nil)
      #expect(refusal(plane, "vda", base: "#vda.4", id: "j6") == nil)
      #expect(refusal(plane, "#vda.5", base: "#vda.4") == .busy(device: "#vda.5"))
      #expect(refusal(plane, "vda", base: "#vda.4") == .busy(device: "vda"))
      #expect(refusal(plane, "#vda.1", base: nil) == .busy(device: "#vda.1"))
      #expect(refusal(plane, "#vda.0", base: nil, id: "j2") == .jobIDInUse("j2"))
      // Newest first, over all.
      let listed = plane.jobs.line.split(separator: "\"id\": \"").dropFirst().map { $0.prefix(2) }
      #expect(listed == ["j6", "j2", "j4"])
      #expect(try plane.text(of: .status).split(separator: "\n").count == 3)
      #expect(try plane.text(of: .status, device: "vda").contains("id: j6"))
      // What is cancelled gives its layers back.
      try plane.act(.cancel, onJob: "j2")
      #expect(refusal(plane, "#vda.1", base: nil, id: "j1") == nil)
      try plane.act(.pause, onJob: "j1")
      try plane.act(.setSpeed(7), onJob: "j1")
      #expect(plane.blockJobs.line.contains("\"speed\": 7"))
      try plane.execute(.cancel, device: "vda", bytes: [])
      #expect(!plane.jobs.line.contains("j6") && plane.jobs.line.contains("j4"))
    }
  }

  @Test("a job into a layer ends with the layers between gone, and can be dismissed by its id")
  func ends() throws {
    try withPlane { plane in
      var order = StreamOrder(device: "#vda.5")
      (order.jobID, order.bottom, order.autoDismiss) = ("j", "#vda.2", false)
      try plane.stream(order)
      while !plane.jobs.line.contains("concluded") { usleep(1000) }
      let chain = try plane.text(of: .chain, device: "vda").split(separator: "\n")
      #expect(chain.map { String($0.suffix(2)) } == ["l6", "l5", "l1", "l0"])
      #expect(try plane.text(of: .error, device: "vda") == "")
      try plane.act(.dismiss, onJob: "j")
      #expect(plane.jobs == .array([]))
      // A snapshot of the device meanwhile, and one that there is nothing to do for.
      #expect(refusal(plane, "#vda.5", base: nil, id: "k") == nil)
      let path = "\(chain[0].split(separator: "\t")[4].dropLast(2))new"
      try plane.snapshot(SnapshotOrder(device: "vda", file: path))
      #expect(refusal(plane, "#vda.6", base: "#vda.5", id: "nothing") == nil)
      try plane.act(.cancel, onJob: "k")
      #expect(plane.jobs == .array([]))
    }
  }
}
