import Control

@testable import QMP

/// What a client of the QMP socket sends, and a line of the human monitor.
enum QMPTarget {
  static func run(_ bytes: [UInt8]) throws {
    var splitter = MessageSplitter()
    let pieces = splitter.add(bytes)
    try claim(splitter.bytes.count <= MessageSplitter.limit, "a message without a most")
    var slow = MessageSplitter()
    try claim(bytes.flatMap { slow.add([$0]) } == pieces, "pieces depend on how bytes come")
    var session = SessionState()
    for piece in pieces {
      switch session.take(piece) {
      case .reply(let reply), .open(let reply): try claimReadable(reply)
      case .carryOut(let command, let arguments, let id):
        try claim(Command(rawValue: command.rawValue) == command, "a command without a name")
        try claimReadable(SessionState.success(.object(arguments), id: id))
      }
    }
    guard let line = String(validating: bytes, as: UTF8.self) else { return }
    if case .text(let text) = MonitorLine(line) {
      try claim(text.isEmpty || text.utf8.last == UInt8(ascii: "\n"), "an answer without an end")
    }
    if let size = MonitorSize.prefix(of: Substring(line).utf8) {
      try claim(size.bytes >= 0 && size.length > 0, "a size below zero")
      try claim(size.length <= bytes.count, "a size longer than its text")
    }
  }

  /// What is sent is read back the same by the same rules, but for our own numbers, which it has none of.
  private static func claimReadable(_ reply: JSONText) throws {
    let line = reply.line
    try claim(!line.utf8.contains(UInt8(ascii: "\n")), "a reply of two lines")
    do {
      let read = try JSONParser.value(Array(line.utf8))
      try claim(read == reply, "a reply reads otherwise: \(line)")
    } catch let fault as JSONFault {
      // A reply stands around what was sent, and so is deeper by as much.
      try claim(fault == .tooDeep, "a reply is no JSON: \(fault.sentence)")
    }
  }
}
