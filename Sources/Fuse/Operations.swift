// What a file system has to answer.
//
// The kernel asks two kinds of questions: about the tree (by inode) and about a file that somebody
// has open. The first go to `Operations`, of which a session has one; the second go straight to the
// `OpenFile` that the answer to `open` handed over. So nothing is looked up on the way of a read.
//
// Every question comes with the reply that is owed for it. The reply cannot be copied, and each of
// its endings consumes it: there is one answer, and a reply that is dropped answers EIO. It may be
// moved elsewhere and ended later from any thread; the worker is free as soon as the call returns.
//
// Threads. All calls come from the session's workers, several at once, also for one file. A call
// may wait for a disk. It must not wait for another request: the workers are few, and the request
// it waits for may be behind it. What has to wait for an event is parked (`ReadReply.park`,
// `PollHandle`), held (`RequestHold`) or kept as its reply. Bytes that come with a call (`RawSpan`)
// are valid until it returns, also when the reply lives on.

/// The tree of a mounted file system. Every method has to be safe to call from several threads.
package protocol Operations: AnyObject, Sendable {
  /// Finds a name in a directory. A found entry counts as one lookup, which `forget` takes back.
  func lookup(_ name: String, in directory: InodeNumber, reply: consuming EntryReply)

  /// Takes back so many lookups; at none, the kernel will not use the number again without a new
  /// lookup. At the end of a mount this is not called for what is left.
  func forget(_ inode: InodeNumber, lookups: UInt64)

  /// Tells what stat(2) needs.
  func attributes(of inode: InodeNumber, reply: consuming AttributesReply)

  /// Changes attributes and tells the new ones.
  func change(_ change: AttributeChange, of inode: InodeNumber, reply: consuming AttributesReply)

  /// Tells where a symbolic link points.
  func readLink(_ inode: InodeNumber, reply: consuming LinkReply)

  /// Opens a file. O_CREAT, O_EXCL and O_TRUNC never arrive here.
  func open(_ inode: InodeNumber, flags: FileFlags, reply: consuming OpenReply)

  /// Lists a directory from `position` on: 0 is the start, any other value is one that an earlier
  /// listing gave as the position after an entry.
  func list(_ directory: InodeNumber, from position: UInt64, reply: consuming ListingReply)

  /// Tells what statfs(2) needs.
  func statistics(of inode: InodeNumber, reply: consuming StatisticsReply)

  /// Says whether the caller may do what access(2) asks (R_OK 4, W_OK 2, X_OK 1). Comes only
  /// without the option that lets the kernel judge by the permission bits.
  func checkAccess(_ mask: Int32, of inode: InodeNumber, reply: consuming StatusReply)

  /// The mount is about to be taken away, while requests are still served: what was kept waiting here
  /// has to go on, and nothing may be kept any more. Not called where the kernel cuts the connection.
  func unmounting()

  /// The mount is over: the workers are gone, and every open file has been released. When this
  /// returns, no reply and no poll handle may be left anywhere.
  func destroy()
}

/// A file that somebody has open, from the answer to `open` until `released`.
///
/// What is not implemented answers as a file that does not know the operation.
package protocol OpenFile: AnyObject, Sendable {
  /// Reads up to `length` bytes. Fewer mean the end of the file, except with direct caching.
  func read(at offset: UInt64, length: Int, flags: FileFlags, reply: consuming ReadReply)

  /// Writes bytes, which are valid until this returns.
  func write(_ bytes: RawSpan, at offset: UInt64, flags: FileFlags, reply: consuming WriteReply)

  /// Answers when what was written before is durable.
  func synchronise(_ scope: SyncScope, reply: consuming StatusReply)

  /// A descriptor of this file was closed; others may remain. close(2) gives the answer's error.
  func flush(reply: consuming StatusReply)

  /// Carries out fallocate(2). Offset and length are checked: neither negative nor overflowing.
  func allocate(
    _ request: AllocationRequest, at offset: UInt64, length: UInt64, reply: consuming StatusReply)

  /// Finds the next data or hole at or after an offset; ENXIO at or past the end.
  func seek(to target: SeekTarget, from offset: UInt64, reply: consuming SeekReply)

  /// Tells what is ready. With a handle, the caller waits: notify it once when that may have
  /// changed. A handle replaces the earlier ones of this open, which are to be dropped.
  func poll(_ handle: consuming PollHandle?, reply: consuming PollReply)

  /// Nobody has the file open any more. Called once, as the last thing.
  func released()
}
