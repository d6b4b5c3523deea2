import Control
import Testing

@testable import QMP

@Suite struct SessionStateTests {
  /// What a session answers to messages, one after the other; `carry out NAME` where it does not.
  private static func answers(_ messages: [String]) -> [String] {
    var session = SessionState()
    var splitter = MessageSplitter()
    return splitter.add(Array(messages.joined(separator: "\n").utf8 + [10])).map { piece in
      switch session.take(piece) {
      case .reply(let reply): reply.line
      case .open(let reply): "open " + reply.line
      case .carryOut(let command, let arguments, let id):
        "carry out \(command.rawValue) \(JSONText.object(arguments).line) \(id?.line ?? "-")"
      }
    }
  }

  private static func error(_ text: String, _ kind: String = "GenericError", id: String? = nil)
    -> String
  {
    let end = id.map { ", \"id\": \($0)" } ?? ""
    return "{\"error\": {\"class\": \"\(kind)\", \"desc\": \"\(text)\"}\(end)}"
  }

  private static let open = "{\"execute\": \"qmp_capabilities\"}"

  @Test("a session greets with its version and what QEMU offers")
  func greeting() {
    #expect(
      SessionState.greeting.line
        == "{\"QMP\": {\"version\": {\"qemu\": {\"major\": 11, \"minor\": 1, \"micro\": 0}, "
        + "\"package\": \"chainfs\"}, \"capabilities\": [\"oob\"]}}")
  }

  @Test("until it is opened a session takes one command, and after that all others")
  func negotiation() {
    #expect(
      Self.answers([
        "{\"execute\": \"query-version\", \"id\": 1}",
        "{\"execute\": \"qmp_capabilities\", \"arguments\": {\"enable\": [\"oob\", \"x\"]}}",
        "{\"execute\": \"qmp_capabilities\", \"arguments\": {\"enable\": 1}}",
        "{\"execute\": \"qmp_capabilities\", \"arguments\": {\"enable\": []}, \"id\": \"x\"}",
        Self.open, "{\"execute\": \"qmp_capabilities\", \"arguments\": {\"enable\": 1}}",
        "{\"execute\": \"query-version\", \"id\": 1}",
      ]) == [
        Self.error(
          "Expecting capabilities negotiation with 'qmp_capabilities'", "CommandNotFound",
          id: "1"),
        Self.error("Parameter 'enable[1]' does not accept value 'x'"),
        Self.error("Invalid parameter type for 'enable', expected: array"),
        "open {\"return\": {}, \"id\": \"x\"}",
        Self.error(
          "Capabilities negotiation is already complete, command ignored", "CommandNotFound"),
        Self.error("Invalid parameter type for 'enable', expected: array"),
        "carry out query-version {} 1",
      ])
  }

  @Test("no command goes out of band, which is told to whom asked for it in QEMU's words")
  func outOfBand() {
    let query = "{\"exec-oob\": \"query-version\", \"id\": 1}"
    let unknown = Self.error("QMP input member 'exec-oob' is unexpected", id: "1")
    #expect(Self.answers([query, Self.open, query]).filter { $0 == unknown }.count == 2)
    #expect(
      Self.answers([
        "{\"execute\": \"qmp_capabilities\", \"arguments\": {\"enable\": [\"oob\", \"oob\"]}}",
        query, "{\"exec-oob\": \"nope\"}", "{\"exec-oob\": \"qmp_capabilities\"}",
        "{\"exec-oob\": \"quit\", \"execute\": \"quit\"}", "{\"exec-oob\": 3}",
        "{\"execute\": \"query-version\", \"id\": 2}",
      ]) == [
        "open {\"return\": {}}",
        Self.error("The command query-version does not support OOB", id: "1"),
        Self.error("The command nope has not been found", "CommandNotFound"),
        Self.error("The command qmp_capabilities does not support OOB"),
        Self.error("QMP input member 'execute' clashes with 'exec-oob'"),
        Self.error("QMP input member 'exec-oob' must be a string"),
        "carry out query-version {} 2",
      ])
  }

  @Test(
    "what is no command is answered with QEMU's words",
    arguments: [
      ("{\"execute\": \"nope\", \"id\": 2}", "The command nope has not been found", "2"),
      ("{\"exec\": \"nope\", \"id\": 2}", "QMP input member 'exec' is unexpected", "2"),
      ("{\"execute\": \"quit\", \"x\": 1}", "QMP input member 'x' is unexpected", nil),
      ("{\"execute\": 5}", "QMP input member 'execute' must be a string", nil),
      (
        "{\"execute\": \"quit\", \"arguments\": 5}",
        "QMP input member 'arguments' must be an object", nil
      ),
      (
        "{\"execute\": \"quit\", \"arguments\": null}",
        "QMP input member 'arguments' must be an object", nil
      ),
      ("[1]", "QMP input must be a JSON object", nil),
      ("5", "QMP input must be a JSON object", nil),
      ("null", "QMP input must be a JSON object", nil),
      ("{}", "QMP input lacks member 'execute'", nil),
      ("{\"execute\" \"x\"}", "JSON parse error, missing : in object pair", nil),
      ("{\"id\": 1, \"id\": 2}", "JSON parse error, duplicate key", nil),
      ("}", "JSON parse error, expecting value", nil),
    ] as [(String, String, String?)])
  func faults(message: String, text: String, id: String?) {
    let kind = text.hasPrefix("The command") ? "CommandNotFound" : "GenericError"
    #expect(
      Self.answers([Self.open, message]).last == Self.error(text, kind, id: id))
  }

  @Test(
    "an id goes back as it came",
    arguments: [
      "1", "-0.25", "1e5", "12345678901234567890123", "\"a\\\"b\"", "null", "true",
      "[1, {\"b\": 2.5, \"a\": null}]", "{}",
    ])
  func ids(id: String) {
    #expect(
      Self.answers([Self.open, "{\"id\": \(id), \"execute\": \"quit\"}"]).last
        == "carry out quit {} \(id)")
    #expect(
      SessionState.success(.object([]), id: .numeral("1.50")).line
        == "{\"return\": {}, \"id\": 1.50}")
  }

  @Test("the list of commands has each once, and none that is not there")
  func list() {
    let names = Command.allCases.map(\.rawValue)
    #expect(Set(names).count == names.count)
    #expect(Command.list.line.hasPrefix("[{\"name\": \"qmp_capabilities\"}, {\"name\": "))
    for name in ["block-commit", "blockdev-add", "device_add", "system_reset"] {
      #expect(!names.contains(name))
    }
  }
}
