internal import Control

/// A command as a client gives it, not looked up yet.
struct Request: Equatable {
  /// A message that is no command; the id that it gave goes back with the reason.
  struct Fault: Error, Equatable {
    var error: QMPError
    var id: JSONText?
  }

  var command: String
  /// It wants to be carried out before those that wait.
  var isOutOfBand = false
  var arguments: [JSONText.Member]
  /// What the reply carries.
  var id: JSONText?

  /// - Parameter hasOutOfBand: the client has asked for that capability.
  init(_ value: JSONText, hasOutOfBand: Bool = false) throws(Fault) {
    guard case .object(let members) = value else {
      throw Fault(error: QMPError("QMP input must be a JSON object"))
    }
    let id = members.first { $0.name == "id" }?.value
    func fault(_ text: String) -> Fault { Fault(error: QMPError(text), id: id) }
    var command: String?
    var outOfBand: String?
    var arguments: [JSONText.Member] = []
    for member in members {
      switch (member.name, member.value) {
      case ("id", _): break
      case ("execute", .string(let name)): command = name
      case ("execute", _): throw fault("QMP input member 'execute' must be a string")
      case ("exec-oob", .string(let name)) where hasOutOfBand: outOfBand = name
      case ("exec-oob", _) where hasOutOfBand:
        throw fault("QMP input member 'exec-oob' must be a string")
      case ("arguments", .object(let values)): arguments = values
      case ("arguments", _): throw fault("QMP input member 'arguments' must be an object")
      default: throw fault("QMP input member '\(member.name)' is unexpected")
      }
    }
    if command != nil, outOfBand != nil {
      throw fault("QMP input member 'execute' clashes with 'exec-oob'")
    }
    guard let command = command ?? outOfBand else {
      throw fault("QMP input lacks member 'execute'")
    }
    self.command = command
    isOutOfBand = outOfBand != nil
    self.arguments = arguments
    self.id = id
  }
}
