import Foundation
import HostSystem
import TestSupport
import Testing

@testable import Control

/// The mount as a machine, over the disks of `makeImages`.
@Suite(
  "Machine", .enabled(if: ToolAvailability.has(["qemu-img", "qemu-io"])), .serialized,
  .timeLimit(.minutes(2)))
struct MachineTests {
  /// What is told from the start on.
  private func names(_ events: EventSubscription) -> [String] {
    var names: [String] = []
    while let line = events.next() {
      names += ["STOP", "RESUME", "created", "null"].filter { line.contains("\"\($0)\"") }
    }
    return names
  }

  @Test("all devices are stopped or none, and the events tell of what has changed")
  func stopping() throws {
    let place = try makeImages()
    let (first, second) = (CountingHold(), CountingHold())
    try withPlane(in: place, hold: first, otherHold: second) { (plane: ControlPlane) throws in
      let events = plane.events.subscribe {}
      second.refusal = ControlError(kind: .unsupported, sentence: "vdb: not here")
      #expect(throws: ControlError(kind: .unsupported, sentence: "vdb: not here")) {
        try plane.stop()
      }
      #expect(!plane.isPaused)
      #expect(first.calls == ["stop", "cont"] && second.calls == [])
      #expect(names(events) == [])
      second.refusal = nil
      try plane.write(.stop, "", device: "vdb")
      #expect(!plane.isPaused)
      try plane.stop()
      // The one that was stopped already is left alone.
      #expect(plane.isPaused && second.calls == ["stop"])
      #expect(names(events) == ["STOP"])
      try plane.write(.cont, "", device: "vda")
      try plane.write(.stop, "", device: "vda")
      #expect(names(events) == ["RESUME", "STOP"])
      plane.cont()
      plane.cont()
      #expect(!plane.isPaused)
      #expect(names(events) == ["RESUME"])
    }
  }

  @Test("the end is told once, with the first reason")
  func ending() throws {
    let place = try makeImages()
    try withPlane(in: place) { (plane: ControlPlane) throws in
      let events = plane.events.subscribe {}
      plane.announceEnd(.signal)
      plane.quit()
      let line = try #require(events.next())
      #expect(
        line.hasSuffix(
          #""event": "SHUTDOWN", "data": {"guest": false, "reason": "host-signal"}}"#))
      #expect(events.next() == nil)
    }
  }

  @Test("a negative speed is looked at last, and tells of a job that came and went")
  func negativeSpeed() throws {
    let place = try makeImages()
    try withPlane(in: place) { (plane: ControlPlane) throws in
      let events = plane.events.subscribe {}
      func refusal(_ change: (inout StreamOrder) -> Void) -> ControlRule? {
        var order = StreamOrder(device: "vda")
        order.speed = -1
        change(&order)
        do {
          try plane.stream(order)
          return nil
        } catch { return error.rule }
      }
      #expect(refusal { $0.device = "no" } == .noDevice("no", node: "no"))
      #expect(refusal { $0.base = "no" } == .noSuchLayer("no"))
      #expect(refusal { $0.jobID = "1x" } == .badJobID("1x"))
      #expect(names(events) == [])
      #expect(refusal { _ in } == .negativeSpeed)
      #expect(names(events) == ["created", "null"])
      #expect(try plane.read(.error).contains("a speed is 0 or more"))
      var order = StreamOrder(device: "vdb")
      order.jobID = "j"
      order.autoDismiss = false
      try plane.stream(order)
      #expect(refusal { $0.jobID = "j" } == .jobIDInUse("j"))
      #expect(plane.jobs.line.ranges(of: "\"id\"").count == 1)
    }
  }
}
