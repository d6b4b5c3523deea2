internal import Control
internal import Filesystem
internal import Logging
internal import QMP

/// The QMP server as a part of a mount.
struct QMPService: MountService {
  private let server: QMPServer

  /// Takes the path of the socket.
  init(path: String) throws(SocketRefusal) {
    server = try QMPServer(path: path)
  }

  func start(_ control: ControlPlane) throws(MountFailure) {
    let logger = Logger(label: "chainfs")
    do throws(SocketRefusal) {
      try server.start(control) { sentence in logger.warning("\(sentence)") }
    } catch { throw MountFailure("\(error)") }
  }

  func stop() { server.stop() }
}
