internal import Control
internal import Fuse
internal import Glibc
internal import HostSystem

/// A control file of the whole mount: each write is one command; reading tells how it is used, or its value.
final class OpenMountCommand: OpenFile {
  private let control: ControlPlane
  private let verb: MountVerb
  private let text: OpenText?

  init(_ verb: MountVerb, control: ControlPlane, isRead: Bool) throws(ControlError) {
    self.verb = verb
    self.control = control
    text = isRead ? try OpenText { control.text(of: verb) } : nil
  }

  func read(at offset: UInt64, length: Int, flags: FileFlags, reply: consuming ReadReply) {
    guard let text else { return reply.fail(EBADF) }
    text.read(at: offset, length: length, flags: flags, reply: reply)
  }

  func write(_ bytes: RawSpan, at offset: UInt64, flags: FileFlags, reply: consuming WriteReply) {
    do {
      try control.execute(verb, bytes: bytes.copied())
      reply.send(written: bytes.byteCount)
    } catch { reply.fail(error.kind.commandErrno) }
  }

  func flush(reply: consuming StatusReply) { reply.succeed() }
}
