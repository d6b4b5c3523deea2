// Small files that are there as a whole or not at all, also after a loss of power.
//
//     new bytes into NAME.new (made anew, never through a link)
//     Order: fsync of the file, rename over NAME, fsync of the directory
//
// Removing is an unlink and an fsync of the directory. What a crash leaves behind is NAME.new, which
// the next replacement makes anew.

/// Replaces, reads and removes small files in steps that a crash cannot split.
package enum AtomicFile {
  /// Puts `bytes` in place of whatever is at `path`; durable when it returns. Only the owner may
  /// read a file that was not there before.
  package static func replace(
    path: String, bytes: [UInt8], on names: any NamedFiles = HostNames()
  ) throws(SystemError) {
    let fresh = path + ".new"
    try unlinkIfThere(fresh, names)
    do throws(SystemError) {
      let file = try names.make(fresh)
      try file.write(bytes)
      // Order: the bytes are durable before the name leads to them.
      try file.synchronize()
      try names.rename(fresh, to: path)
    } catch {
      do throws(SystemError) {
        try unlinkIfThere(fresh, names)
      } catch {
        // The first failure is the one that counts; what is left here harms nobody.
      }
      throw error
    }
    try flushDirectory(of: path, names)
  }

  /// The bytes of the file, nil if there is none. At most `limit` and one more are read, so that a
  /// longer file can be told; a symbolic link is refused.
  package static func contents(
    of path: String, limit: Int, on names: any NamedFiles = HostNames()
  ) throws(SystemError) -> [UInt8]? {
    do throws(SystemError) {
      return try names.bytes(of: path, limit: limit + 1)
    } catch {
      if error.kind == .notFound { return nil }
      throw error
    }
  }

  /// Takes the file away, durably; one that is not there is no failure.
  package static func remove(
    path: String, on names: any NamedFiles = HostNames()
  ) throws(SystemError) {
    try unlinkIfThere(path, names)
    try flushDirectory(of: path, names)
  }

  private static func flushDirectory(
    of path: String, _ names: any NamedFiles
  ) throws(SystemError) {
    try names.flushDirectory(path.lastIndex(of: "/").map { String(path[...$0]) } ?? ".")
  }

  private static func unlinkIfThere(
    _ path: String, _ names: any NamedFiles
  ) throws(SystemError) {
    do throws(SystemError) {
      try names.unlink(path)
    } catch {
      if error.kind != .notFound { throw error }
    }
  }
}
