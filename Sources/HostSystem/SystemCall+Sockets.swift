// Unix sockets by their paths.
//
// A socket's file gets its permissions from the socket, as far as the umask lets them through, in the
// moment in which bind(2) makes it. So the permissions are set before, and there is no moment at which
// somebody else could connect.

internal import CHost
internal import Glibc

/// Which socket a path leads to.
package struct SocketIdentity: Sendable, Hashable {
  var device: UInt64
  var inode: UInt64
}

extension SystemCall {
  /// The most bytes that the path of a socket may have.
  package static let longestSocketPath = 107

  /// Makes a socket that its owner alone may connect to, and takes connections from then on.
  package static func listen(at path: String) throws(SystemError) -> OwnedDescriptor {
    let socket = try unixSocket()
    _ = try retrying("fchmod") { fchmod(socket.raw, 0o600) }
    // Alive: the address is lent for the one call.
    try unsafe withAddress(path, for: "bind", of: socket.raw) { number, address, size in
      unsafe bind(number, address, size)
    }
    let number = socket.raw
    _ = try retrying("listen") { Glibc.listen(number, 128) }
    return socket
  }

  /// Whether somebody takes connections at the path of a socket.
  package static func isAnswered(_ path: String) throws(SystemError) -> Bool {
    let socket = try unixSocket()
    do {
      // Alive: the address is lent for the one call.
      try unsafe withAddress(path, for: "connect", of: socket.raw) { number, address, size in
        unsafe connect(number, address, size)
      }
      return true
    } catch {
      switch error.number {
      case ECONNREFUSED, ENOENT: return false
      // It has more connections waiting than it has room for.
      case EAGAIN: return true
      default: throw error
      }
    }
  }

  /// The socket at a path, which is not followed if it is a link; nil if something else is there, and
  /// `.notFound` if nothing is.
  package static func socket(at path: String) throws(SystemError) -> SocketIdentity? {
    try checkPath(path, for: "lstat")
    var values = stat()
    // Alive: path and values are this call's only.
    _ = try retrying("lstat") { unsafe lstat(path, &values) }
    guard values.st_mode & S_IFMT == S_IFSOCK else { return nil }
    return SocketIdentity(device: UInt64(values.st_dev), inode: UInt64(values.st_ino))
  }

  private static func unixSocket() throws(SystemError) -> OwnedDescriptor {
    let kind = Int32(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue | SOCK_NONBLOCK.rawValue)
    return OwnedDescriptor(taking: try retrying("socket") { Glibc.socket(AF_UNIX, kind, 0) })
  }

  private static func withAddress(
    _ path: String, for call: String, of number: Int32,
    _ body: (Int32, UnsafePointer<sockaddr>, socklen_t) -> Int32
  ) throws(SystemError) {
    try checkPath(path, for: call)
    let bytes = Array(path.utf8)
    if bytes.isEmpty || bytes.count > longestSocketPath {
      throw SystemError(call: call, number: ENAMETOOLONG)
    }
    var address = sockaddr_un()
    address.sun_family = sa_family_t(AF_UNIX)
    // In bounds: the path is shorter than the field, which stays zero behind it.
    unsafe withUnsafeMutableBytes(of: &address.sun_path) { unsafe $0.copyBytes(from: bytes) }
    let size = socklen_t(MemoryLayout<sockaddr_un>.size)
    _ = try retrying(call) {
      // Alive: the address is this local; every kind of address begins as a sockaddr does.
      unsafe withUnsafePointer(to: &address) { pointer in
        unsafe pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
          unsafe body(number, $0, size)
        }
      }
    }
  }
}
