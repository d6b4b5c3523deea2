// One image: what an overlay, a base or a raw file offers to the chain above it.
//
// A mapping is a value. The chain asks where bytes live, is told, and moves them afterwards; no lock
// of the image is held then. An image never knows what is below it: `unallocated` is its whole answer.

package import BlockIO
package import HostSystem
package import Qcow2Format

/// Where a run of an image's guest bytes lives.
package enum Mapping: Sendable, Equatable {
  /// The image has nothing to say: the layer below decides, or zero if there is none.
  case unallocated
  /// Reads zero, whatever is below.
  case zero
  /// The bytes are in the image file from this offset on.
  case data(HostOffset)
  /// The bytes are part of a compressed cluster.
  case compressed(CompressedSpan)
}

/// A compressed cluster, or as much of one as a mapping is about.
package struct CompressedSpan: Sendable, Hashable {
  /// The first guest byte of the whole cluster.
  package var clusterStart: GuestOffset
  /// Where the compressed bytes are.
  package var location: CompressedLocation
}

/// A run of guest bytes with one mapping.
package struct MappedExtent: Sendable, Equatable {
  /// Where the run's first byte lives; the others follow it.
  package var mapping: Mapping
  /// The run's length in bytes, never zero.
  package var length: UInt64

  /// Puts a mapping and its length together.
  package init(mapping: Mapping, length: UInt64) {
    self.mapping = mapping
    self.length = length
  }
}

/// What an overlay's header says about the image below it.
package struct BackingReference: Sendable, Equatable {
  /// The string in the header, not resolved.
  package var name: String
  /// The format that the overlay names, nil if it names none.
  package var format: String?

  /// Names a backing file.
  package init(name: String, format: String?) {
    self.name = name
    self.format = format
  }
}

/// An image file that can be read.
package protocol Image: AnyObject, Sendable {
  /// The image file: headers and tables, and what is compressed.
  var storage: any BlockStorage { get }
  /// Where the bytes of the guest are: the image file itself, or what stands for it.
  ///
  /// Host offsets of mappings and tickets are offsets of this. It shares the image file's roles and
  /// ends with it, see ``becomeBacking()`` and ``closeFiles()``.
  var data: any BlockStorage { get }
  /// The path that the image was opened by.
  var path: String { get }
  /// `qcow2` or `raw`.
  var formatName: String { get }
  /// The size of the disk that the image shows, in bytes.
  var virtualSize: UInt64 { get }
  /// The unit of the tables in bytes.
  var clusterSize: Int { get }
  /// The unit in bytes in which clusters are filled: the cluster, or a part of it.
  var allocationUnit: Int { get }
  /// What the header says about the image below, nil if the image stands alone.
  var backingReference: BackingReference? { get }
  /// Writes are refused.
  var isReadOnly: Bool { get }
  /// How many internal snapshots the image keeps.
  var internalSnapshotCount: Int { get }

  /// Says where the bytes from `offset` on live, and how far that holds, at most `limit` bytes.
  ///
  /// The range lies inside the virtual size and `limit` is not zero. May read tables.
  func mapping(at offset: GuestOffset, upTo limit: UInt64) throws(ImageError) -> MappedExtent
  /// Fills `buffer` from a mapping, `skip` bytes behind its start.
  ///
  /// For a compressed mapping the start is that of the whole cluster. Unallocated reads as zeroes.
  func read(
    _ mapping: Mapping, skip: Int, into buffer: inout MutableRawSpan
  ) throws(ImageError)
  /// Gives the memory back that holds tables for the next question, if they are not in use.
  func releaseTables()
}

extension Image {
  /// There is nothing to give back.
  package func releaseTables() {}

  /// The guest's bytes are in a file of their own.
  var hasOwnDataFile: Bool { data.identity != storage.identity }

  /// The file is one of the image's own.
  package func uses(_ file: StorageIdentity) -> Bool {
    storage.identity == file || data.identity == file
  }

  /// What the image takes on the host, in bytes.
  package func allocatedBytes() throws(StorageError) -> UInt64 {
    let own = try storage.allocatedBytes()
    return hasOwnDataFile ? own + (try data.allocatedBytes()) : own
  }

  /// Makes an active image a backing one, with all its files. Close it first.
  package func becomeBacking() {
    storage.becomeBacking()
    if hasOwnDataFile { data.becomeBacking() }
  }

  /// Lets go of all files of the image. Flush first.
  package func closeFiles() {
    data.close()
    storage.close()
  }
}

/// What a write may do next.
package enum WriteStep: ~Copyable {
  /// Write this many bytes at this place of the file; nothing else has to change.
  case inPlace(HostOffset, UInt64)
  /// Fill the ticket's range, then commit it.
  case allocate(WriteTicket)
}

/// What becomes of the host clusters of a range that is made to read zero.
package enum ZeroMode: Sendable {
  /// They stay with the range, for a later write.
  case keepAllocation
  /// They are given back.
  case unmap
}

/// What would show through if a range of the image became unallocated.
package enum BelowContents: Sendable {
  /// A layer below, perhaps with data.
  case mayHaveData
  /// Nothing but zeroes.
  case readsZero
}

/// An image that can be the active one.
package protocol WritableImage: Image {
  /// A cluster can be marked as zero without bytes.
  var hasZeroClusters: Bool { get }
  /// Clusters wait for `releaseFreed()`.
  var hasFreedClusters: Bool { get }

  /// Prepares the write of the start of `range`.
  ///
  /// The step covers at least the first byte. Waits for another writer of the same cluster. Persistent
  /// bitmaps note the whole range as changed by the guest.
  func beginWrite(_ range: GuestRange) throws(ImageError) -> WriteStep
  /// The same for a write of what the disk holds there already, which bitmaps do not note.
  func beginAllocate(_ range: GuestRange) throws(ImageError) -> WriteStep
  /// Gives a ticket for the first unallocated bytes of `range`, nil if it has none.
  ///
  /// `range` starts at an allocation unit and ends at one or at the end of the disk. The ticket may
  /// cover more than what is unallocated, where a cluster has to move.
  func beginPopulate(_ range: GuestRange) throws(ImageError) -> WriteTicket?
  /// Marks the unallocated units of `range` as zero and gives the bytes that were marked.
  func populateZeroes(_ range: GuestRange) throws(ImageError) -> UInt64
  /// Makes the start of `range` read zero by tables alone, and gives how many bytes it did.
  ///
  /// 0 where a unit is only touched in part, or the format has no way: write zero bytes there.
  /// Persistent bitmaps note the whole range as changed by the guest.
  func writeZeroes(
    _ range: GuestRange, mode: ZeroMode, below: BelowContents
  ) throws(ImageError) -> UInt64
  /// Makes durable all that was written and committed before the call.
  func flush() throws(ImageError)
  /// Gives clusters back that were freed before the last flush.
  ///
  /// The caller makes sure that no read or write that began before is still going on.
  func releaseFreed() throws(ImageError)
  /// Makes the header name another backing file, or none. The caller keeps all other I/O away.
  func setBacking(_ reference: BackingReference?) throws(ImageError)
  /// Makes changes that are not the guest's, which persistent bitmaps do not note. No other call may
  /// be in progress.
  func withoutRecording<Failure: Error>(_ body: () throws(Failure) -> Void) throws(Failure)
  /// Flushes, stores persistent bitmaps and gives back what was claimed ahead of use. No I/O may
  /// follow.
  func close() throws(ImageError)
}
