import Glibc
import HostSystem

/// A connection to a unix socket that carries lines.
///
/// No wait on it takes longer than two minutes: a daemon that is stuck is an error.
final class QMPSocket {
  private let descriptor: OwnedDescriptor
  // What has come and was not asked for yet.
  private var rest: [UInt8] = []

  init(path: String) throws {
    let raw = try SystemCall.retrying("socket") {
      Glibc.socket(AF_UNIX, Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0)
    }
    descriptor = OwnedDescriptor(taking: raw)
    let address = try Self.address(of: path)
    // Alive and in bounds: the array is for the call only, and is larger than the length that is said.
    _ = try SystemCall.retrying("connect") {
      unsafe connect(raw, address, socklen_t(MemoryLayout<sockaddr_un>.size))
    }
    var limit = timeval(tv_sec: 120, tv_usec: 0)
    // Alive and in bounds: the call reads one timeval, this local.
    _ = try SystemCall.retrying("setsockopt") {
      unsafe setsockopt(
        raw, SOL_SOCKET, SO_RCVTIMEO, &limit, socklen_t(MemoryLayout<timeval>.size))
    }
  }

  /// The bytes of a sockaddr_un, in the units that connect(2) takes: a family, then the path and a NUL.
  private static func address(of path: String) throws -> [sockaddr] {
    let start = MemoryLayout<sa_family_t>.size
    let room = MemoryLayout<sockaddr_un>.size - start
    guard path.utf8.count < room else { throw BenchError("\(path) is too long for a socket") }
    let unit = MemoryLayout<sockaddr>.size
    var address = [sockaddr](
      repeating: sockaddr(), count: (MemoryLayout<sockaddr_un>.size + unit - 1) / unit)
    var words = address.mutableSpan
    // A sockaddr has no padding, and any bytes make one.
    var bytes = unsafe words.mutableBytes
    bytes.storeBytes(of: sa_family_t(AF_UNIX), toByteOffset: 0, as: sa_family_t.self)
    for (index, byte) in path.utf8.enumerated() {
      bytes.storeBytes(of: byte, toByteOffset: start + index, as: UInt8.self)
    }
    return address
  }

  /// Sends a line.
  func send(line: String) throws {
    let bytes = Array((line + "\n").utf8)
    // Alive and in bounds: the array is for the call only. A line fits the socket's buffer whole.
    let count = try SystemCall.retrying("send") {
      unsafe Glibc.send(descriptor.raw, bytes, bytes.count, Int32(MSG_NOSIGNAL))
    }
    if count < bytes.count { throw BenchError("the socket took a part of: \(line)") }
  }

  /// The next line, without its end.
  func readLine() throws -> String {
    var searched = 0
    while true {
      if let end = rest[searched...].firstIndex(of: UInt8(ascii: "\n")) {
        let line = rest[..<end].filter { $0 != UInt8(ascii: "\r") }
        rest.removeFirst(end + 1)
        return String(decoding: line, as: UTF8.self)
      }
      searched = rest.count
      var bytes = [UInt8](repeating: 0, count: 4096)
      var span = bytes.mutableRawSpan
      let count = try SystemCall.readNext(descriptor.raw, into: &span)
      if count == 0 { throw BenchError("the daemon has closed its socket") }
      rest += bytes[..<count]
    }
  }
}
