import Foundation
import TestSupport
import Testing

@testable import Control

/// Streams, snapshots and jobs as QMP orders them. Disks and layers are those of `makeImages`.
@Suite(
  "Orders", .enabled(if: ToolAvailability.has(["qemu-img", "qemu-io"])), .serialized,
  .timeLimit(.minutes(2)))
struct OrderTests {
  private func refusal(_ body: () throws(ControlError) -> Void) -> ControlRule? {
    do {
      try body()
      return nil
    } catch { return error.rule }
  }

  private func order(_ change: (inout StreamOrder) -> Void) -> StreamOrder {
    var order = StreamOrder(device: "vda")
    change(&order)
    return order
  }

  @Test("each fault of a stream has its rule, and what is refused changes nothing")
  func streamRules() throws {
    let place = try makeImages()
    try withPlane(in: place) { (plane: ControlPlane) throws in
      func expect(_ rule: ControlRule, _ change: (inout StreamOrder) -> Void) {
        #expect(refusal { () throws(ControlError) in try plane.stream(order(change)) } == rule)
      }
      expect(.exclusive("base", "base-node")) { ($0.base, $0.baseNode) = ("x", "y") }
      expect(.exclusive("base", "bottom")) { ($0.base, $0.bottom) = ("x", "y") }
      expect(.exclusive("bottom", "base-node")) { ($0.bottom, $0.baseNode) = ("x", "y") }
      expect(.noDevice("no", node: "no")) { $0.device = "no" }
      expect(.noSuchLayer("no")) { $0.base = "no" }
      expect(.noSuchLayer("top.qcow2")) { $0.base = "top.qcow2" }
      expect(.noDevice("", node: "no")) { $0.baseNode = "no" }
      // A device is no node, and the other way round.
      expect(.noDevice("", node: "vda")) { $0.baseNode = "vda" }
      expect(.noDevice("", node: "vda")) { $0.bottom = "vda" }
      expect(.notBelow(node: "#vdb.0", device: "vda")) { $0.baseNode = "#vdb.0" }
      expect(.notInChain(node: "#vdb.0", device: "vda")) { $0.bottom = "#vdb.0" }
      expect(.backingFileWithoutBase) { $0.backingFile = "x" }
      expect(.badJobID("1x")) { $0.jobID = "1x" }
      // A node lends a job no name.
      expect(.badJobID("")) { $0.device = "#vda.1" }
      expect(.noSuchLayer("mid.qcow2")) { ($0.device, $0.base) = ("#vda.1", "mid.qcow2") }
      expect(.notBelow(node: "#vda.1", device: "#vda.1")) {
        ($0.device, $0.baseNode) = ("#vda.1", "#vda.1")
      }
      expect(.notInChain(node: "#vda.2", device: "#vda.1")) {
        ($0.device, $0.bottom) = ("#vda.1", "#vda.2")
      }
      #expect(plane.jobs == .array([]))
      #expect(plane.events.byteCount == 0)
      // This one is told of as QEMU does, and only where all else is well.
      expect(.badJobID("1x")) { ($0.jobID, $0.speed) = ("1x", -1) }
      #expect(plane.events.byteCount == 0)
      expect(.negativeSpeed) { $0.speed = -1 }
      #expect(plane.jobs == .array([]))
    }
  }

  @Test("a base is named by its node, or by the node above it")
  func bases() throws {
    for (change, layers) in [
      ({ $0.baseNode = "#vda.0" }, 2), ({ $0.bottom = "#vda.1" }, 2), ({ $0.bottom = "#vda.0" }, 1),
    ] as [((inout StreamOrder) -> Void, Int)] {
      let place = try makeImages()
      try withPlane(in: place) { (plane: ControlPlane) throws in
        var order = StreamOrder(device: "vda")
        order.autoDismiss = false
        change(&order)
        try plane.stream(order)
        while !plane.jobs.line.contains("concluded") { usleep(1000) }
        let chain = try plane.text(of: .chain, device: "vda")
        #expect(chain.split(separator: "\n").count == layers)
      }
    }
  }

  @Test("a job is steered by its id, and takes what fits its stage")
  func jobs() throws {
    let place = try makeImages()
    try withPlane(in: place) { (plane: ControlPlane) throws in
      func act(_ action: JobAction, _ id: String = "j") -> ControlRule? {
        refusal { () throws(ControlError) in try plane.act(action, onJob: id) }
      }
      try plane.stream(order { ($0.jobID, $0.speed, $0.autoDismiss) = ("j", 1, false) })
      #expect(act(.cancel, "vda") == .noJob("vda"))
      #expect(act(.finalize) == .verb("finalize", job: "j", state: "running"))
      #expect(act(.complete) == .verb("complete", job: "j", state: "running"))
      #expect(act(.setSpeed(-1)) == .negativeSpeed)
      #expect(act(.resume) == .notPaused)
      #expect(act(.pause) == nil && act(.pause) == .alreadyPaused)
      #expect(act(.cancelUnlessPaused) == .cancelWhilePaused("j"))
      #expect(
        refusal { () throws(ControlError) in try plane.stream(order { $0.jobID = "k" }) }
          == .busy(device: "vda"))
      #expect(
        refusal { () throws(ControlError) in try plane.stream(order { $0.device = "#vda.2" }) }
          == .busy(device: "#vda.2"))
      #expect(act(.cancel) == nil)
      #expect(act(.resume) == .notPaused)
      #expect(plane.blockJobs.line.contains("\"error\": \"Operation canceled\""))
      #expect(act(.cancel) == .verb("cancel", job: "j", state: "concluded"))
      #expect(
        refusal { () throws(ControlError) in try plane.stream(order { $0.jobID = "j" }) }
          == .jobIDInUse("j"))
      #expect(act(.dismiss) == nil && act(.dismiss) == .noJob("j"))
    }
  }

  @Test("a snapshot names its node, once, and a refused one leaves no file behind")
  func snapshots() throws {
    let place = try makeImages()
    try withPlane(in: place) { (plane: ControlPlane) throws in
      let file = place.file("sn.qcow2")
      func snapshot(
        device: String? = "vda", node: String? = nil, _ change: (inout SnapshotOrder) -> Void
      ) -> ControlRule? {
        var order = SnapshotOrder(device: device, node: node, file: file)
        change(&order)
        return refusal { () throws(ControlError) in try plane.snapshot(order) }
      }
      #expect(snapshot(device: "no") { _ in } == .noDevice("no", node: ""))
      #expect(snapshot(device: nil, node: "no") { _ in } == .noDevice("", node: "no"))
      #expect(snapshot(device: nil) { _ in } == .noDevice("", node: ""))
      #expect(snapshot(device: nil, node: "#vda.2") { _ in } == .nodeNameMissing)
      #expect(snapshot(device: "#vda.2") { _ in } == .noDevice("#vda.2", node: ""))
      #expect(snapshot(device: nil, node: "vda") { _ in } == .noDevice("", node: "vda"))
      #expect(snapshot(node: "no") { _ in } == .nodeNameMissing)
      let lost = place.file("nowhere/sn.qcow2")
      for mode in SnapshotOrder.Mode.allCases {
        #expect(
          snapshot { ($0.file, $0.mode) = (lost, mode) }
            == .noOverlay(mode, path: lost, reason: "No such file or directory"))
      }
      #expect(snapshot { $0.format = "bogus" } == .badFormat("bogus"))
      #expect(snapshot { $0.newNode = "1x" } == .badNodeName("1x"))
      #expect(snapshot { $0.newNode = "vdb" } == .nodeNameInUse("vdb"))
      #expect(!FileManager.default.fileExists(atPath: file))
      #expect(snapshot(device: nil, node: "#vda.2") { $0.newNode = "sn" } == nil)
      #expect(snapshot { $0.newNode = "sn" } == .nodeNameInUse("sn"))
      #expect(try plane.blockNodes(.flat).line.contains("\"node-name\": \"sn\""))
      #expect(try plane.blockInfo(BlockQuestion(name: "vda")).contains(file))
      #expect(try plane.blockInfo(BlockQuestion(name: "no")).isEmpty)
    }
  }
}
