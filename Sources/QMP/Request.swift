internal import Control

/// A command as a client gives it, not looked up yet.
struct Request: Equatable {
  /// A message that is no command; the id that it gave goes back with the reason.
  struct Fault: Error, Equatable {
    var error: QMPError
    var id: JSONText?
  }

  var command: String
  var arguments: [JSONText.Member]
  /// What the reply carries.
  var id: JSONText?

  init(_ value: JSONText) throws(Fault) {
    guard case .object(let members) = value else {
      throw Fault(error: QMPError("QMP input must be a JSON object"))
    }
    let id = members.first { $0.name == "id" }?.value
    func fault(_ text: String) -> Fault { Fault(error: QMPError(text), id: id) }
    var command: String?
    var arguments: [JSONText.Member] = []
    for member in members {
      switch (member.name, member.value) {
      case ("id", _): break
      case ("execute", .string(let name)): command = name
      case ("execute", _): throw fault("QMP input member 'execute' must be a string")
      case ("arguments", .object(let values)): arguments = values
      case ("arguments", _): throw fault("QMP input member 'arguments' must be an object")
      default: throw fault("QMP input member '\(member.name)' is unexpected")
      }
    }
    guard let command else { throw fault("QMP input lacks member 'execute'") }
    self.command = command
    self.arguments = arguments
    self.id = id
  }
}
