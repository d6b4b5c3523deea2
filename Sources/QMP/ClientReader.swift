internal import NIOCore

/// The event loop's end of a client: bytes that come, and the end of the connection.
final class ClientReader: ChannelInboundHandler {
  typealias InboundIn = ByteBuffer

  private let client: Client
  private var splitter = MessageSplitter()

  init(_ client: Client) {
    self.client = client
  }

  func channelActive(context: ChannelHandlerContext) {
    guard client.begin() else { return context.close(promise: nil) }
    context.read()
  }

  func channelRead(context: ChannelHandlerContext, data: NIOAny) {
    client.take(splitter.add(unwrapInboundIn(data).readableBytesView))
  }

  func channelReadComplete(context: ChannelHandlerContext) {
    if client.mayRead() { context.read() }
  }

  func userInboundEventTriggered(context: ChannelHandlerContext, event: Any) {
    if let event = event as? ChannelEvent, event == .inputClosed { client.endOfInput() }
    context.fireUserInboundEventTriggered(event)
  }

  func errorCaught(context: ChannelHandlerContext, error: any Error) {
    context.close(promise: nil)
  }

  func channelInactive(context: ChannelHandlerContext) {
    client.close()
    context.fireChannelInactive()
  }
}
