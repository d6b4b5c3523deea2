internal import Glibc

/// The calls by name that AtomicFile is made of.
///
/// The seam between small files and the host: tests put a directory here that crashes between any two.
package protocol NamedFiles: Sendable {
  /// Makes an empty file that only the owner may read; nothing may be at the path yet, no link either.
  func make(_ path: String) throws(SystemError) -> any FreshFile
  /// The bytes of a file, at most `limit`; throws `.notFound` where there is none. A symbolic link is
  /// refused.
  func bytes(of path: String, limit: Int) throws(SystemError) -> [UInt8]
  /// Gives a file another name, in one step, in place of whatever has that name.
  func rename(_ path: String, to new: String) throws(SystemError)
  /// Takes a name away; throws `.notFound` where there is none.
  func unlink(_ path: String) throws(SystemError)
  /// Makes all names of a directory durable, those that came and those that went.
  func flushDirectory(_ path: String) throws(SystemError)
}

/// A file that was just made, and is closed with the last reference.
package protocol FreshFile: AnyObject, Sendable {
  /// Writes all of the bytes to its start.
  func write(_ bytes: [UInt8]) throws(SystemError)
  /// Makes them durable.
  func synchronize() throws(SystemError)
}

/// The names of the host.
package struct HostNames: NamedFiles {
  /// The host needs nothing.
  package init() {}

  private final class Fresh: FreshFile {
    private let descriptor: OwnedDescriptor

    init(_ descriptor: consuming OwnedDescriptor) { self.descriptor = descriptor }

    func write(_ bytes: [UInt8]) throws(SystemError) {
      try SystemCall.write(descriptor.raw, bytes.rawSpan, at: 0)
    }

    func synchronize() throws(SystemError) { try SystemCall.synchronize(descriptor.raw) }
  }

  /// Makes a file of the host, never through a link.
  package func make(_ path: String) throws(SystemError) -> any FreshFile {
    let flags = O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW
    return Fresh(try SystemCall.open(path, flags: flags, mode: 0o600))
  }

  /// Reads a file of the host; a pipe or a device does not hold the caller up.
  package func bytes(of path: String, limit: Int) throws(SystemError) -> [UInt8] {
    let file = try SystemCall.open(path, flags: O_RDONLY | O_NOFOLLOW | O_NONBLOCK)
    var bytes = [UInt8](repeating: 0, count: limit)
    var span = bytes.mutableRawSpan
    let count = try SystemCall.read(file.raw, into: &span, at: 0)
    bytes.removeLast(bytes.count - count)
    return bytes
  }

  /// rename(2).
  package func rename(_ path: String, to new: String) throws(SystemError) {
    try SystemCall.rename(path, to: new)
  }

  /// unlink(2).
  package func unlink(_ path: String) throws(SystemError) { try SystemCall.unlink(path) }

  /// fsync(2) of the directory.
  package func flushDirectory(_ path: String) throws(SystemError) {
    try SystemCall.flushDirectory(path)
  }
}
