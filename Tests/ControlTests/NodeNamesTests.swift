import Chain
import Foundation
import HostSystem
import TestSupport
import Testing

@testable import Control

@Suite("NodeNames")
struct NodeNamesTests {
  @Test("a name is kept by one until it is released, and one that was given stays")
  func reserve() {
    let names = NodeNames()
    #expect(names.reserve("a") && names.reserve("b"))
    #expect(!names.reserve("a"))
    let layer = LayerID(rawValue: 7)
    #expect(names.name(of: layer, device: "vda") == "#vda.7")
    names.set("a", of: layer, device: "vda")
    names.release(["a"])
    #expect(names.reserve("a"), "it is looked for among the layers")
    #expect(!names.reserve("b"))
    #expect(names.name(of: layer, device: "vda") == "a")
    #expect(names.name(of: layer, device: "vdb") == "#vdb.7")
  }

  @Test(
    "a snapshot does not take the name that another is about to give, and gives back its own",
    .enabled(if: ToolAvailability.has(["qemu-img", "qemu-io"])))
  func snapshots() throws {
    let place = try makeImages()
    try withPlane(in: place) { (plane: ControlPlane) throws in
      func refusal(_ device: String, _ node: String, format: String = "qcow2") -> ControlRule? {
        var order = SnapshotOrder(device: device, file: place.file("\(device).qcow2"))
        (order.newNode, order.format) = (node, format)
        do throws(ControlError) { try plane.snapshot(order) } catch { return error.rule }
        return nil
      }
      #expect(plane.nodeNames.reserve("n"))
      #expect(refusal("vda", "n") == .nodeNameInUse("n"))
      #expect(!FileManager.default.fileExists(atPath: place.file("vda.qcow2")))
      plane.nodeNames.release(["n"])
      // It is refused when it has the name already.
      #expect(refusal("vda", "n", format: "bogus") == .badFormat("bogus"))
      #expect(refusal("vda", "n") == nil)
      #expect(refusal("vdb", "n") == .nodeNameInUse("n"))
      #expect(refusal("vdb", "m") == nil)
      let nodes = try plane.blockNodes(.flat).line
      #expect(nodes.contains("\"node-name\": \"n\"") && nodes.contains("\"node-name\": \"m\""))
    }
  }
}
