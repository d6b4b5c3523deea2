internal import CFuse
internal import Glibc

/// Entries of a directory, packed as the kernel wants them. Lives for one call only.
@safe package struct DirectoryListing: ~Copyable {
  private let request: OpaquePointer
  private let buffer: UnsafeMutableRawBufferPointer
  private(set) var used = 0

  /// The buffer belongs to the thread and outlives the call that the listing is made for.
  init(request: OpaquePointer, buffer: UnsafeMutableRawBufferPointer) {
    unsafe self.request = request
    unsafe self.buffer = buffer
  }

  /// Adds an entry. `next` is the position after it, not 0, from which a later listing goes on.
  ///
  /// False: it does not fit, and the listing is to end here; a later one starts with this entry.
  /// The name must not hold a NUL or a slash.
  package mutating func add(
    _ name: String, inode: InodeNumber, kind: FileKind, next: UInt64
  ) -> Bool {
    var attributes = stat()
    attributes.st_ino = ino_t(inode.rawValue)
    attributes.st_mode = kind.modeBits
    let room = unsafe buffer.count - used
    // In bounds: `used` never passes the buffer's count, and libfuse writes nothing if an entry
    // takes more than `room`. The request is alive until the listing has been sent.
    let size = unsafe fuse_add_direntry(
      request, buffer.baseAddress?.advanced(by: used).assumingMemoryBound(to: CChar.self), room,
      name, &attributes, off_t(clamping: next))
    guard size <= room else { return false }
    used += size
    return true
  }
}
