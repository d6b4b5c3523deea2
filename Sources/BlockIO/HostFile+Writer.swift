// A second open file of a backing file, that may write to it.
//
// QEMU's locks belong to an open file, and each of the two would see the other's as a stranger's. So they
// change hands, and there is no moment in which a foreign writer could come in unseen:
//
//     1  the writer sets its bytes, which are more than the backing file's       both hold
//     2  the backing file drops its own                                           the writer holds
//     3  the writer looks for others: every byte that is held now is a stranger's
//     4  on a conflict the backing file sets its bytes again, then the writer drops what it has
//
// All bytes are locked shared, so setting them never fails for somebody else's sake. A reader that comes
// between 1 and 4 is refused even if the writer is too: it may try again.

internal import Glibc
internal import HostSystem

extension HostFile {
  /// Opens the very file of this backing file once more, for writing, and hands the locks to it.
  ///
  /// Throws `.locked` if somebody else uses the file; this one has its locks as before then. It stays
  /// open for reading whatever becomes of the other.
  package func writer() throws(StorageError) -> HostFile {
    let descriptor = try calling(path) { () throws(SystemError) in
      try SystemCall.open(
        found: self.descriptor.raw, flags: O_RDWR | O_NOCTTY | O_NONBLOCK)
    }
    let writer = try HostFile(path, descriptor, .readWrite, .none, .active, pageCache)
    try writer.takeLocks(of: self)
    return writer
  }

  /// Has the locks back from a writer that was not put to use, and closes that.
  package func takeBack(from writer: HostFile) {
    // Lock: the writer's role, then this one's, as everywhere here.
    writer.lock.withLock { held in
      if held != .none { lock.withLock { own in own.set(.backing, descriptor: descriptor.raw) } }
    }
    // Order: this one holds its bytes again before the writer drops its own.
    writer.close()
  }

  private func takeLocks(of backing: HostFile) throws(StorageError) {
    // Lock: the writer's role, then the backing file's, across the system calls.
    try lock.withLock { held throws(StorageError) in
      try backing.lock.withLock { other throws(StorageError) in
        // It has none where it was opened without, or the host knows none.
        if other == .none { return }
        try held.takeOver(
          .active, from: &other, of: backing.descriptor.raw, descriptor: descriptor.raw, path: path)
      }
    }
  }
}
