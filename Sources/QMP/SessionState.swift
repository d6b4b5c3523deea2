internal import Control

// What a session makes of a message, without sockets and threads.
//
//     negotiating --qmp_capabilities--> open
//
// Until then a session takes that one command and sees no events; from then on it takes all others.

/// Where a session stands.
struct SessionState {
  /// What is to be done about a message.
  enum Step: Equatable {
    /// Nothing but to send a line.
    case reply(JSONText)
    /// The session is open: events follow the reply.
    case open(JSONText)
    /// A command is to be carried out, and then answered.
    case carryOut(Command, arguments: [JSONText.Member], id: JSONText?)
  }

  private var isOpen = false
  private var hasOutOfBand = false

  /// The one capability that there is: commands that are carried out before those that wait. As in QEMU, few
  /// commands could be, and none of these; a client that asks for it is told so of each.
  private static let outOfBand = "oob"

  /// The line with which a session begins.
  static let greeting = JSONText.object([
    .init(
      "QMP",
      .object([
        .init("version", Command.version), .init("capabilities", .array([.string(outOfBand)])),
      ]))
  ])

  /// Decides about a message.
  mutating func take(_ piece: MessageSplitter.Piece) -> Step {
    let request: Request
    switch piece {
    case .fault(let fault): return .reply(Self.fault(fault))
    case .value(let bytes):
      let value: JSONText
      do throws(JSONFault) { value = try JSONParser.value(bytes) } catch {
        return .reply(Self.fault(error))
      }
      do throws(Request.Fault) {
        request = try Request(value, hasOutOfBand: hasOutOfBand)
      } catch {
        return .reply(Self.failure(error.error, id: error.id))
      }
    }
    do throws(QMPError) { return try take(request) } catch {
      return .reply(Self.failure(error, id: request.id))
    }
  }

  private mutating func take(_ request: Request) throws(QMPError) -> Step {
    let isNegotiation = request.command == "qmp_capabilities"
    if isOpen {
      let command = Command(rawValue: request.command)
      if request.isOutOfBand, isNegotiation || command != nil {
        throw QMPError("The command \(request.command) does not support OOB")
      }
      if isNegotiation {
        _ = try capabilities(of: request)
        throw QMPError(
          .commandNotFound, "Capabilities negotiation is already complete, command ignored")
      }
      guard let command else {
        throw QMPError(.commandNotFound, "The command \(request.command) has not been found")
      }
      return .carryOut(command, arguments: request.arguments, id: request.id)
    }
    guard isNegotiation else {
      throw QMPError(
        .commandNotFound, "Expecting capabilities negotiation with 'qmp_capabilities'")
    }
    hasOutOfBand = try !capabilities(of: request).isEmpty
    isOpen = true
    return .open(Self.success(.object([]), id: request.id))
  }

  /// The capabilities that a client asks for, all of which there are.
  private func capabilities(of request: Request) throws(QMPError) -> [String] {
    var arguments = Arguments(request.arguments)
    let wanted = try arguments.optionalStrings("enable") ?? []
    try arguments.finish()
    for (index, capability) in wanted.enumerated() where capability != Self.outOfBand {
      throw QMPError("Parameter 'enable[\(index)]' does not accept value '\(capability)'")
    }
    return wanted
  }

  /// The reply to a command that was carried out.
  static func success(_ value: JSONText, id: JSONText?) -> JSONText {
    reply(.init("return", value), id)
  }

  /// The reply to a command that failed.
  static func failure(_ error: QMPError, id: JSONText?) -> JSONText {
    reply(.init("error", error.json), id)
  }

  private static func fault(_ fault: JSONFault) -> JSONText {
    failure(QMPError(fault.sentence), id: nil)
  }

  private static func reply(_ member: JSONText.Member, _ id: JSONText?) -> JSONText {
    .object([member] + (id.map { [JSONText.Member("id", $0)] } ?? []))
  }
}
