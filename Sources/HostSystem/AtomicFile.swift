// Small files that are there as a whole or not at all, also after a loss of power.
//
//     new bytes into NAME.new (made anew, never through a link)
//     Order: fsync of the file, rename over NAME, fsync of the directory
//
// Removing is an unlink and an fsync of the directory. What a crash leaves behind is NAME.new, which
// the next replacement makes anew.

internal import Glibc

/// Replaces, reads and removes small files in steps that a crash cannot split.
package enum AtomicFile {
  /// Puts `bytes` in place of whatever is at `path`; durable when it returns. Only the owner may
  /// read a file that was not there before.
  package static func replace(path: String, bytes: [UInt8]) throws(SystemError) {
    let fresh = path + ".new"
    try unlinkIfThere(fresh)
    do throws(SystemError) {
      let flags = O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW
      let file = try SystemCall.open(fresh, flags: flags, mode: 0o600)
      try SystemCall.write(file.raw, bytes.rawSpan, at: 0)
      // Order: the bytes are durable before the name leads to them.
      try SystemCall.synchronize(file.raw)
      try file.close()
      try SystemCall.rename(fresh, to: path)
    } catch {
      do throws(SystemError) {
        try unlinkIfThere(fresh)
      } catch {
        // The first failure is the one that counts; what is left here harms nobody.
      }
      throw error
    }
    try flushDirectory(of: path)
  }

  /// The bytes of the file, nil if there is none. At most `limit` and one more are read, so that a
  /// longer file can be told; a symbolic link is refused.
  package static func contents(of path: String, limit: Int) throws(SystemError) -> [UInt8]? {
    do throws(SystemError) {
      let file = try SystemCall.open(path, flags: O_RDONLY | O_NOFOLLOW | O_NONBLOCK)
      var bytes = [UInt8](repeating: 0, count: limit + 1)
      var span = bytes.mutableRawSpan
      let count = try SystemCall.read(file.raw, into: &span, at: 0)
      bytes.removeLast(bytes.count - count)
      return bytes
    } catch {
      if error.kind == .notFound { return nil }
      throw error
    }
  }

  /// Takes the file away, durably; one that is not there is no failure.
  package static func remove(path: String) throws(SystemError) {
    try unlinkIfThere(path)
    try flushDirectory(of: path)
  }

  /// Makes the name at `path` durable: a file that was made, renamed or removed stays so.
  package static func flushDirectory(of path: String) throws(SystemError) {
    let directory = path.lastIndex(of: "/").map { String(path[...$0]) } ?? "."
    let file = try SystemCall.open(directory, flags: O_RDONLY | O_DIRECTORY)
    try SystemCall.synchronize(file.raw)
  }

  private static func unlinkIfThere(_ path: String) throws(SystemError) {
    do throws(SystemError) {
      try SystemCall.unlink(path)
    } catch {
      if error.kind != .notFound { throw error }
    }
  }
}
