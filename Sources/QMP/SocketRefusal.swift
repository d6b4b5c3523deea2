package import HostSystem

/// Why a server could not have its socket.
package enum SocketRefusal: Error, Sendable, CustomStringConvertible {
  /// The path has more bytes than a socket's address holds.
  case tooLong(path: String)
  /// Something that is no socket has the path.
  case noSocket(path: String)
  /// Somebody takes connections there.
  case answered(path: String)
  /// The host refused it.
  case system(SystemError, path: String)
  /// Connections could not be waited for.
  case server(String, path: String)

  /// A sentence that names the path and the fix.
  package var description: String {
    switch self {
    case .tooLong(let path):
      "qmp=\(path): the path of a socket has at most \(SystemCall.longestSocketPath) bytes"
    case .noSocket(let path):
      "qmp=\(path): there is a file that is no socket; give another path or remove it"
    case .answered(let path):
      "qmp=\(path): another server answers there; give each mount a socket of its own"
    case .system(let error, let path): "qmp=\(path): \(error)"
    case .server(let reason, let path): "qmp=\(path): \(reason)"
    }
  }
}
