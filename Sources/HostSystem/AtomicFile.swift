internal import CHost
internal import Glibc

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
  package static func replace(path: String, bytes: [UInt8]) throws(SystemError) {
    let fresh = path + ".new"
    try SystemCall.checkPath(path, for: "open")
    try remove(name: fresh)
    do {
      let file = try open(fresh, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC)
      try write(bytes, to: file.raw)
      let raw = file.raw
      _ = try SystemCall.retrying("fsync") { fsync(raw) }
      try file.close()
      // Alive: both strings are for the call only.
      _ = try SystemCall.retrying("rename") { unsafe rename(fresh, path) }
    } catch {
      do { try remove(name: fresh) } catch {
        // The first failure is the one that counts; what is left here harms nobody.
      }
      throw error
    }
    try flushDirectory(of: path)
  }

  /// The bytes of the file, nil if there is none. At most `limit` and one more are read, so that a
  /// longer file can be told; a symbolic link is refused.
  package static func contents(of path: String, limit: Int) throws(SystemError) -> [UInt8]? {
    try SystemCall.checkPath(path, for: "open")
    do {
      let file = try open(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC)
      let bytes = try read(file.raw, limit: limit + 1)
      try file.close()
      return bytes
    } catch {
      if error.kind == .notFound { return nil }
      throw error
    }
  }

  /// Takes the file away, durably; one that is not there is no failure.
  package static func remove(path: String) throws(SystemError) {
    try SystemCall.checkPath(path, for: "unlink")
    try remove(name: path)
    try flushDirectory(of: path)
  }

  private static func remove(name: String) throws(SystemError) {
    do {
      // Alive: the string is for the call only.
      _ = try SystemCall.retrying("unlink") { unsafe unlink(name) }
    } catch {
      if error.kind != .notFound { throw error }
    }
  }

  private static func open(_ path: String, _ flags: Int32) throws(SystemError) -> OwnedDescriptor {
    // Alive: the string is for the call only.
    let raw = try SystemCall.retrying("open") { unsafe chainfs_open(path, flags, 0o600) }
    return OwnedDescriptor(taking: raw)
  }

  private static func write(_ bytes: [UInt8], to raw: Int32) throws(SystemError) {
    var done = 0
    while done < bytes.count {
      done += try SystemCall.retrying("write") {
        // Alive: the array is borrowed for the closure.
        unsafe bytes.withUnsafeBytes { buffer in
          let rest = unsafe UnsafeRawBufferPointer(rebasing: buffer[done...])
          // In bounds: the rest of the array and its size.
          return unsafe Glibc.write(raw, rest.baseAddress, rest.count)
        }
      }
    }
  }

  private static func read(_ raw: Int32, limit: Int) throws(SystemError) -> [UInt8] {
    var bytes = [UInt8](repeating: 0, count: limit)
    var done = 0
    while done < limit {
      let count = try SystemCall.retrying("read") {
        // Alive: the array is borrowed for the closure.
        unsafe bytes.withUnsafeMutableBytes { buffer in
          let rest = unsafe UnsafeMutableRawBufferPointer(rebasing: buffer[done...])
          // In bounds: the rest of the array and its size.
          return unsafe Glibc.read(raw, rest.baseAddress, rest.count)
        }
      }
      if count == 0 { break }
      done += count
    }
    return Array(bytes[..<done])
  }

  private static func flushDirectory(of path: String) throws(SystemError) {
    let directory = path.lastIndex(of: "/").map { String(path[...$0]) } ?? "."
    let file = try open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC)
    let raw = file.raw
    _ = try SystemCall.retrying("fsync") { fsync(raw) }
    try file.close()
  }
}
