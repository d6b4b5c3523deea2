internal import CFuse
internal import Glibc

/// The answer to a lookup.
package struct EntryReply: ~Copyable, Sendable {
  let owed: OwedReply

  /// Found; this counts as one lookup of the inode.
  package consuming func send(
    _ attributes: FileAttributes, nameValidFor nameValidity: Validity,
    attributesValidFor validity: Validity
  ) {
    var entry = fuse_entry_param()
    entry.ino = attributes.inode.rawValue
    entry.attr = attributes.asStat
    entry.attr_timeout = validity.seconds
    entry.entry_timeout = nameValidity.seconds
    owed.end(entry: entry)
  }

  /// Not found, and the kernel may believe it for a while without asking again.
  package consuming func sendAbsent(validFor validity: Validity) {
    var entry = fuse_entry_param()
    entry.entry_timeout = validity.seconds
    owed.end(entry: entry)
  }

  /// Ends with an errno; ENOENT is an absence that is not remembered.
  package consuming func fail(_ number: Int32) { owed.end(number) }
}

/// The answer to a question for attributes, or to their change.
package struct AttributesReply: ~Copyable, Sendable {
  let owed: OwedReply

  /// Who asks.
  package var caller: Caller { owed.caller }

  /// Ends with the attributes as they are now.
  package consuming func send(_ attributes: FileAttributes, validFor validity: Validity) {
    owed.end(attributes: attributes.asStat, validFor: validity)
  }

  /// Ends with an errno.
  package consuming func fail(_ number: Int32) { owed.end(number) }
}

/// The answer to readlink(2).
package struct LinkReply: ~Copyable, Sendable {
  let owed: OwedReply

  /// Ends with the link's text.
  package consuming func send(_ target: String) { owed.end(link: target) }

  /// Ends with an errno.
  package consuming func fail(_ number: Int32) { owed.end(number) }
}

/// The answer to open(2).
package struct OpenReply: ~Copyable, Sendable {
  let owed: OwedReply

  /// Who opens.
  package var caller: Caller { owed.caller }

  /// Ends with the open file; the session owns it until nobody has it open.
  package consuming func send(
    _ file: any OpenFile, caching: CachingMode, seeking: Seeking = .allowed
  ) {
    let context = owed.context
    let ticket = context.files.add(file)
    var opened = fuse_file_info()
    opened.fh = ticket
    opened.direct_io = caching == .direct ? 1 : 0
    opened.keep_cache = caching == .cached ? 1 : 0
    // Without pages there is nothing to flush when the file is closed, and so nothing to ask.
    opened.noflush = caching == .direct ? 1 : 0
    opened.nonseekable = seeking == .refused ? 1 : 0
    // The kernel sends no release for an open that its opener did not live to see.
    if !owed.end(opened: opened) { context.files.remove(ticket)?.released() }
  }

  /// Ends with an errno.
  package consuming func fail(_ number: Int32) { owed.end(number) }
}

/// The answer to read(2).
package struct ReadReply: ~Copyable, Sendable {
  let owed: OwedReply

  /// Lets `body` read into this thread's buffer of at least `length` bytes (at most 1 MiB), and
  /// ends with as many of its bytes as `body` says. If `body` throws, ends with the errno that
  /// `number` makes of it.
  ///
  /// The buffer is aligned to a page and has been touched, so that O_DIRECT may read into it. It
  /// holds what earlier requests left there.
  package consuming func fill<Failure: Error>(
    upTo length: Int, failure number: (Failure) -> Int32,
    _ body: (inout MutableRawSpan) throws(Failure) -> Int
  ) {
    owed.end(filling: length, failure: number, body)
  }

  /// Ends with bytes from elsewhere; none mean the end of the file.
  package consuming func send(_ bytes: RawSpan) { owed.end(bytes) }

  /// Ends with the part of a text that a read of `length` bytes at `offset` sees.
  package consuming func send(_ text: [UInt8], at offset: UInt64, length: Int) {
    let start = Int(min(offset, UInt64(text.count)))
    let end = start + min(max(length, 0), text.count - start)
    owed.end(text, start..<end)
  }

  /// Ends with an errno.
  package consuming func fail(_ number: Int32) { owed.end(number) }

  /// Keeps the reader waiting, for as long as it is not interrupted.
  package consuming func park() -> ParkedRead { ParkedRead(ParkedReply.park(owed)) }
}

/// The answer to write(2).
package struct WriteReply: ~Copyable, Sendable {
  let owed: OwedReply

  /// Ends with the number of bytes that were written.
  package consuming func send(written count: Int) { owed.end(written: count) }

  /// Ends with an errno.
  package consuming func fail(_ number: Int32) { owed.end(number) }
}

/// The answer to what succeeds or fails and tells nothing else.
package struct StatusReply: ~Copyable, Sendable {
  let owed: OwedReply

  /// Who asks.
  package var caller: Caller { owed.caller }

  /// Done.
  package consuming func succeed() { owed.end(0) }

  /// Ends with an errno.
  package consuming func fail(_ number: Int32) { owed.end(number) }
}

/// The answer to readdir(3).
package struct ListingReply: ~Copyable, Sendable {
  let owed: OwedReply
  let capacity: Int

  /// Lets `body` add entries, and ends with them; none mean the end of the directory.
  package consuming func send(_ body: (inout DirectoryListing) -> Void) {
    owed.end(listing: capacity, body)
  }

  /// Ends with an errno.
  package consuming func fail(_ number: Int32) { owed.end(number) }
}

/// The answer to statfs(2).
package struct StatisticsReply: ~Copyable, Sendable {
  let owed: OwedReply

  /// Ends with the statistics.
  package consuming func send(_ statistics: FilesystemStatistics) {
    owed.end(statistics: statistics.asStatvfs)
  }

  /// Ends with an errno.
  package consuming func fail(_ number: Int32) { owed.end(number) }
}

/// The answer to lseek(2) with SEEK_DATA or SEEK_HOLE.
package struct SeekReply: ~Copyable, Sendable {
  let owed: OwedReply

  /// Ends with the position that was found.
  package consuming func send(_ position: UInt64) { owed.end(position: position) }

  /// Ends with an errno; ENXIO where there is nothing more.
  package consuming func fail(_ number: Int32) { owed.end(number) }
}

/// The answer to poll(2).
package struct PollReply: ~Copyable, Sendable {
  let owed: OwedReply

  /// Ends with what is ready now; nothing keeps the caller waiting for the handle.
  package consuming func send(_ readiness: Readiness) { owed.end(readiness: readiness) }

  /// Ends with an errno.
  package consuming func fail(_ number: Int32) { owed.end(number) }
}
