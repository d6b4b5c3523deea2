import Control
import Testing

@testable import QMP

@Suite struct TransactionTextTests {
  private func actions(_ text: String) throws -> [TransactionAction] {
    let value = try JSONParser.value(Array(text.utf8))
    guard case .object(let members) = value else { return [] }
    var arguments = Arguments(members)
    return try TransactionText.actions(&arguments)
  }

  @Test("actions are read in their order, each with its own arguments")
  func reading() throws {
    let read = try actions(
      """
      {"actions": [
        {"type": "blockdev-snapshot-sync", "data": {"device": "vda", "snapshot-file": "/a"}},
        {"type": "blockdev-snapshot-sync", "data": {"node-name": "n", "snapshot-file": "/b",
          "snapshot-node-name": "m", "mode": "existing", "format": "raw"}},
        {"type": "abort", "data": {}},
        {"type": "drive-backup", "data": {"what": "ever"}}],
       "properties": {"completion-mode": "individual"}}
      """)
    var second = SnapshotOrder(device: nil, node: "n", file: "/b")
    second.newNode = "m"
    second.mode = .existing
    second.format = "raw"
    let first = SnapshotOrder(device: "vda", file: "/a")
    #expect(read == [.snapshot(first), .snapshot(second), .abort, .missing(.driveBackup)])
    #expect(try actions(#"{"actions": []}"#) == [])
  }

  @Test(
    "what is wrong is told with its place, in QEMU's words",
    arguments: [
      ("{}", "Parameter 'actions' is missing"),
      (#"{"actions": 3}"#, "Invalid parameter type for 'actions', expected: array"),
      (#"{"actions": [3]}"#, "Invalid parameter type for 'actions[0]', expected: object"),
      (#"{"actions": [{}]}"#, "Parameter 'actions[0].type' is missing"),
      (
        #"{"actions": [{"type": 3}]}"#,
        "Invalid parameter type for 'actions[0].type', expected: string"
      ),
      (
        #"{"actions": [{"type": "x", "data": {}}]}"#,
        "Parameter 'type' does not accept value 'x'"
      ),
      (#"{"actions": [{"type": "abort"}]}"#, "Parameter 'actions[0].data' is missing"),
      (
        #"{"actions": [{"type": "abort", "data": 1}]}"#,
        "Invalid parameter type for 'actions[0].data', expected: object"
      ),
      (
        #"{"actions": [{"type": "abort", "data": {"x": 1}}]}"#,
        "Parameter 'actions[0].data.x' is unexpected"
      ),
      (
        #"{"actions": [{"type": "abort", "data": {}, "x": 1}]}"#,
        "Parameter 'actions[0].x' is unexpected"
      ),
      (
        #"{"actions": [{"type": "abort", "data": {}},"#
          + #"{"type": "blockdev-snapshot-sync", "data": {}}]}"#,
        "Parameter 'actions[1].data.snapshot-file' is missing"
      ),
      (
        #"{"actions": [], "properties": 1}"#,
        "Invalid parameter type for 'properties', expected: object"
      ),
      (#"{"actions": [], "properties": {"x": 1}}"#, "Parameter 'properties.x' is unexpected"),
      (
        #"{"actions": [], "properties": {"completion-mode": "x"}}"#,
        "Parameter 'completion-mode' does not accept value 'x'"
      ),
      (
        #"{"actions": [{"type": "blockdev-snapshot-sync", "data": {"snapshot-file": "/a"}}],"#
          + #""properties": {"completion-mode": "grouped"}}"#,
        "Action 'blockdev-snapshot-sync' does not support Transaction property "
          + "completion-mode = grouped"
      ),
      (#"{"actions": [], "x": 1}"#, "Parameter 'x' is unexpected"),
    ])
  func wrong(text: String, complaint: String) throws {
    #expect(throws: QMPError(complaint)) { try actions(text) }
  }
}
