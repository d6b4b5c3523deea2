internal import HostSystem

// A socket in the file system outlives the process that made it, if that one is killed. So a file that
// is there already may be a living server's or a dead one's; connecting tells. A dead one's is taken
// away. Two servers that start at the same moment over a dead one's socket may both find it dead, and
// one may then take away the other's; each removes at its end only what is still its own.

/// A socket of ours, and the file that leads to it.
final class SocketPlace: Sendable {
  let path: String
  private let identity: SocketIdentity?
  private let descriptor: Monitor<OwnedDescriptor?>

  /// Takes a path, in place of a socket whose server is dead.
  init(_ path: String) throws(SocketRefusal) {
    if path.utf8.count > SystemCall.longestSocketPath { throw .tooLong(path: path) }
    try Self.clear(path)
    self.path = path
    do throws(SystemError) {
      let socket = try SystemCall.listen(at: path)
      identity = try SystemCall.socket(at: path)
      descriptor = Monitor(socket)
    } catch { throw .system(error, path: path) }
  }

  /// Takes away what a dead server left.
  private static func clear(_ path: String) throws(SocketRefusal) {
    let isSocket: Bool
    let isAnswered: Bool
    do throws(SystemError) {
      isSocket = try SystemCall.socket(at: path) != nil
      isAnswered = isSocket ? try SystemCall.isAnswered(path) : false
      if isSocket, !isAnswered { try SystemCall.unlink(path) }
    } catch {
      if error.kind == .notFound { return }
      throw .system(error, path: path)
    }
    if !isSocket { throw .noSocket(path: path) }
    if isAnswered { throw .answered(path: path) }
  }

  /// The open socket, for one who closes it.
  func take() -> OwnedDescriptor? { descriptor.withLock { $0.take() } }

  /// Takes the file away, if it is still the one that was made.
  func remove() {
    // Best effort: a file that stays is taken away by the next server at the path.
    do throws(SystemError) {
      if let identity, try SystemCall.socket(at: path) == identity {
        try SystemCall.unlink(path)
      }
    } catch { return }
  }
}
