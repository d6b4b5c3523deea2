package import Control
internal import HostSystem
internal import NIOCore
internal import NIOPosix

// The socket, and who is connected to it.
//
//     init: the path is taken   start: clients are served   stop: clients go, the path is given back
//
// One event loop serves the socket and all connections, each of which has a thread for its commands.

/// Serves QMP on a unix socket.
package final class QMPServer: Sendable {
  /// How many clients may be connected at once; more are sent away.
  static let mostClients = 128

  private struct State {
    var clients: [ObjectIdentifier: Client] = [:]
    var isStopped = false
    var group: MultiThreadedEventLoopGroup?
  }

  private let place: SocketPlace
  private let state = Monitor(State())

  /// Takes the path of a socket; nobody but the owner may connect, and who does waits for the start.
  ///
  /// It starts no thread.
  package init(path: String) throws(SocketRefusal) {
    place = try SocketPlace(path)
  }

  /// Serves clients from now on.
  ///
  /// `note` takes a sentence for the log.
  package func start(
    _ control: ControlPlane, note: @escaping @Sendable (String) -> Void
  ) throws(SocketRefusal) {
    guard let socket = place.take() else { return }
    let service = Client.Service(
      control: control, note: note, admit: { [weak self] in self?.admit($0) == true },
      left: { [weak self] in self?.left($0) })
    let group = MultiThreadedEventLoopGroup(numberOfThreads: 1)
    state.withLock { $0.group = group }
    let bootstrap = ServerBootstrap(group: group)
      .childChannelOption(.autoRead, value: false)
      .childChannelOption(.allowRemoteHalfClosure, value: true)
      .childChannelOption(.maxMessagesPerRead, value: 1)
      .childChannelOption(.recvAllocator, value: FixedSizeRecvByteBufferAllocator(capacity: 4096))
      .childChannelInitializer { channel in
        channel.eventLoop.makeCompletedFuture {
          let reader = ClientReader(Client(channel, service))
          try channel.pipeline.syncOperations.addHandler(reader)
        }
      }
    do {
      // The group closes it.
      _ = try bootstrap.withBoundSocket(socket.release()).wait()
    } catch { throw .server("\(error)", path: place.path) }
  }

  /// Sends all clients away and gives the path back. When it returns no command goes on any more.
  package func stop() {
    // Order: the file goes first, so that nobody finds a socket that does not answer.
    place.remove()
    let (clients, group) = state.withLock { state in
      state.isStopped = true
      return (Array(state.clients.values), state.group)
    }
    // Why the mount ends, and the reply to who ended it, should be on their way before the connection goes.
    for client in clients { client.sendWhatIsThere() }
    for client in clients { client.close() }
    state.wait(while: { !$0.clients.isEmpty })
    guard let group else { return }
    // Closes all connections. It fails only for a group that was shut down already.
    do { try group.syncShutdownGracefully() } catch { return }
  }

  private func admit(_ client: Client) -> Bool {
    state.withLock { state in
      if state.isStopped || state.clients.count >= Self.mostClients { return false }
      state.clients[ObjectIdentifier(client)] = client
      return true
    }
  }

  private func left(_ client: Client) {
    state.change { _ = $0.clients.removeValue(forKey: ObjectIdentifier(client)) }
  }
}
