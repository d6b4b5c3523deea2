internal import CFuse
internal import Glibc

// Where a worker reads its requests to.
//
// A write comes as two headers and its bytes. Bytes that are to go past the host's page cache have to
// start on a page, or somebody copies them to one first. So the headers end where a page begins:
//
//     |          headers|bytes of the write             |
//      page      ^       page                            page
//                start
//
// Requests of other kinds have shorter headers, and nothing that wants a page.

/// The memory of one worker's requests.
enum RequestMemory {
  private static let pageSize = 4096
  /// The most that is read at once: headers, and a write of the largest size.
  static let capacity = ThreadBuffer.capacity + pageSize

  /// Runs `body`, whose requests may be read into `capacity` bytes from the given place on.
  ///
  /// With `.atOnce` the pages are there before the first request, which must not wait for memory that
  /// only requests can free.
  static func whileServing<Result>(
    _ starting: ThreadStarting, _ body: (UnsafeMutableRawPointer) -> Result
  ) -> Result {
    let byteCount = pageSize + capacity
    guard let pages = unsafe aligned_alloc(pageSize, byteCount) else {
      preconditionFailure("no memory for the requests of a worker")
    }
    defer { unsafe free(pages) }
    // In bounds: all that was made. Alive: until the body has ended.
    if starting == .atOnce { unsafe memset(pages, 0, byteCount) }
    // In bounds: the headers are shorter than the page before the bytes.
    return unsafe body(pages + (pageSize - Int(chainfs_write_headers)))
  }
}
