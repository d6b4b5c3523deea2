// One qcow2 image: its tables in memory, its free clusters, and the order in which they reach the disk.
//
// The lock of the image guards memory only. A question to the tables (MetadataState) either has an
// answer or names what is missing; `ask` brings that in, without the lock, and asks again:
//
//     slice not in memory     one thread reads it, the others sleep until it is there
//     L2 table missing/shared one thread makes a table of our own, the others sleep
//     cluster reserved        sleep until its writer has committed
//     cache full of changes   flush, then go on
//
// Reads and writes of guest bytes happen outside, by the chain. See WriteOrdering in the module's
// documentation for what has to be on disk before what.

package import BlockIO
package import HostSystem
internal import Qcow2Format
internal import Synchronization

/// A qcow2 image, open for reading or as the active image of a chain.
package final class Qcow2Image: WritableImage {
  package let storage: any BlockStorage
  package let data: any BlockStorage
  package let isReadOnly: Bool
  let geometry: Geometry
  let header: ImageHeader
  let state: Monitor<MetadataState>
  let allocator: ClusterAllocator
  let flushes = FlushGroup()
  let marks: ImageMarks
  let snapshots = Monitor(SnapshotTables())
  private let backing: Monitor<BackingReference?>
  let needsFirstWrite: Atomic<Bool>
  let firstWrite = Monitor(())
  /// The autoclear bits that outlive the first write.
  let keptAutoclear: UInt64
  /// The persistent bitmaps, if there are any that are kept true.
  let bitmaps: BitmapTracker?

  /// Memory for L2 entries of an active image; maps 32 GiB of disk at clusters of 64 KiB.
  package static let activeCacheBytes = 4 << 20
  /// The same for a layer, whose tables are read only while the chain merges them.
  package static let layerCacheBytes = 8 << 10

  /// Whether a file begins as a qcow2 image does.
  package static func isQcow2(_ storage: any BlockStorage) throws(ImageError) -> Bool {
    try ImageHeader.clusterSize(of: storage) != nil
  }

  /// Opens an image; read-only if its storage is.
  ///
  /// `data` is where the guest's bytes are if that is not the image file itself. Reads the header
  /// only. Throws for what is not qcow2, breaks the format, needs a feature that is not there, or may
  /// not be written to in the state it is in. An image that was not closed is repaired first if it is
  /// to be written to: its refcounts are counted anew.
  package convenience init(
    storage: any BlockStorage, data: (any BlockStorage)? = nil,
    cacheBytes: Int = Qcow2Image.activeCacheBytes
  ) throws(ImageError) {
    try self.init(storage: storage, data: data, cacheBytes: cacheBytes, marks: nil)
  }

  /// Opens an image, or goes on with one whose header has changed, with the marks it had.
  init(
    storage: any BlockStorage, data: (any BlockStorage)?, cacheBytes: Int, marks: ImageMarks?
  ) throws(ImageError) {
    let path = storage.path
    var header = try ImageHeader.read(from: storage)
    if let feature = header.unsupportedFeatures().first {
      throw .unsupported(path: path, feature: feature)
    }
    // The bytes in the file are not the guest's: nobody may take them for that.
    if header.encryption == .luks, !(data is EncryptedStorage) { throw .secretNeeded(path: path) }
    if !storage.isReadOnly {
      if header.isCorrupt {
        throw .needsRepair(path: path, reason: "the image is marked corrupt")
      }
      if header.isDirty, marks == nil { header = try Self.recover(storage) }
    }
    try header.checkTables(in: storage)
    if header.geometry.hasDataFile, data == nil {
      throw .unsupported(path: path, feature: "an external data file")
    }
    self.storage = storage
    self.data = data ?? storage
    self.header = header
    isReadOnly = storage.isReadOnly
    geometry = header.geometry
    self.marks = marks ?? ImageMarks(storage: storage, header: header)
    allocator = ClusterAllocator(storage: storage, header: header, marks: self.marks)
    state = Monitor(MetadataState(geometry: header.geometry, cacheBytes: cacheBytes))
    backing = Monitor(
      header.backingFile.map { BackingReference(name: $0, format: header.backingFormat) })
    let bitmaps =
      storage.isReadOnly ? nil : try BitmapTracker(header: header, allocator: allocator)
    self.bitmaps = bitmaps
    let kept =
      (header.isDataFileRaw ? ImageHeader.rawDataFeature : 0)
      | (bitmaps == nil ? 0 : ImageHeader.bitmapsFeature)
    keptAutoclear = header.autoclearFeatures & kept
    needsFirstWrite = Atomic(header.autoclearFeatures & ~kept != 0)
  }

  package var path: String { storage.path }
  package var formatName: String { "qcow2" }
  package var virtualSize: UInt64 { geometry.virtualSize }
  package var clusterSize: Int { geometry.clusterSize }
  package var allocationUnit: Int { geometry.subclusterSize }
  package var internalSnapshotCount: Int { header.snapshotCount }
  package var hasZeroClusters: Bool { geometry.hasZeroFlag }
  package var backingReference: BackingReference? { backing.withLock { $0 } }
  package var hasFreedClusters: Bool { state.withLock { !$0.freed.isEmpty } }

  /// Takes note of a header that names another backing file.
  func keepBacking(_ reference: BackingReference?) {
    backing.withLock { $0 = reference }
  }

  // MARK: - Reading

  package func mapping(
    at offset: GuestOffset, upTo limit: UInt64
  ) throws(ImageError) -> MappedExtent {
    precondition(
      limit > 0 && offset.rawValue < virtualSize && limit <= virtualSize - offset.rawValue,
      "a mapping outside of the disk was asked for")
    return try ask { $0.mapping(at: offset.rawValue, upTo: limit) }
  }

  package func read(
    _ mapping: Mapping, skip: Int, into buffer: inout MutableRawSpan
  ) throws(ImageError) {
    switch mapping {
    case .unallocated, .zero: buffer.fillWithZeroes()
    case .data(let host):
      do { try data.readZeroFilled(into: &buffer, at: host + UInt64(skip)) } catch {
        throw .storage(error)
      }
    case .compressed(let span):
      try readCompressed(span.location, skip: skip, into: &buffer)
    }
  }

  package func releaseTables() { state.withLock { $0.cache.removeAll() } }

  private func readCompressed(
    _ location: CompressedLocation, skip: Int, into buffer: inout MutableRawSpan
  ) throws(ImageError) {
    let clusterSize = geometry.clusterSize
    precondition(skip + buffer.byteCount <= clusterSize, "a read leaves its compressed cluster")
    let method = header.compressionType
    try ThreadScratch.withBuffer(.inflate, byteCount: location.byteCount + clusterSize) {
      scratch throws(ImageError) in
      var input = scratch.slice(0..<location.byteCount)
      do throws(StorageError) {
        try storage.readZeroFilled(into: &input, at: HostOffset(location.hostOffset))
      } catch {
        throw .storage(error)
      }
      // The input is copied out since one span cannot be read and written in two parts at once.
      let stream = input.bytes.copied()
      var output = scratch.slice(location.byteCount..<location.byteCount + clusterSize)
      do throws(FormatError) {
        // The array outlives the call.
        try unsafe CompressedCluster.inflate(stream.span.bytes, method: method, into: &output)
      } catch { throw .format(path: path, error) }
      buffer.copy(output.bytes.extracting(skip..<skip + buffer.byteCount))
    }
  }

  // MARK: - Asking the tables

  /// Puts a question to the tables until it has an answer.
  func ask<Value: Sendable>(
    _ question: (inout MetadataState) -> Lookup<Value>
  ) throws(ImageError) -> Value {
    do { return try answer(to: question) } catch { throw noted(error) }
  }

  private func answer<Value: Sendable>(
    to question: (inout MetadataState) -> Lookup<Value>
  ) throws(ImageError) -> Value {
    while true {
      var seen: UInt64 = 0
      let answer = state.withLock { state -> Lookup<Value> in
        if !state.isL1Loaded { return .needsTable(Self.wholeL1) }
        seen = state.generation
        let answer = question(&state)
        if case .needsSlice(let slice, _) = answer { state.loadingSlices.insert(slice) }
        if case .needsTable(let index) = answer { state.tablesInMaking.insert(index) }
        return answer
      }
      switch answer {
      case .found(let value): return value
      case .needsSlice(let slice, let place): try loadSlice(slice, at: place)
      case .needsTable(Self.wholeL1): try loadL1()
      case .needsTable(let index): try makeTable(index)
      case .broken(let error): throw .format(path: path, error)
      // The generation moves with everything that a busy answer waits for.
      case .busy: state.wait { $0.generation == seen && $0.isAnyoneAtWork }
      }
    }
  }

  /// Stands for the L1 table itself where an L1 index is named.
  private static let wholeL1 = -1

  private func loadL1() throws(ImageError) {
    let entries = try storage.readEntries(header.l1Size, at: header.l1TableOffset)
    state.change { state in
      // Two threads may have read the same; nobody changes the table before it is loaded.
      if state.isL1Loaded { return }
      state.l1 = entries
      state.isL1Loaded = true
    }
  }

  private func loadSlice(_ slice: UInt64, at place: UInt64) throws(ImageError) {
    let count = state.withLock { $0.cache.wordsPerSlice }
    let entries: [UInt64]
    do { entries = try storage.readEntries(count, at: place) } catch {
      state.change { $0.endLoading(slice) }
      throw error
    }
    while !state.withLock({ $0.cache.insert(slice, entries) }) {
      do { try flush() } catch {
        state.change { $0.endLoading(slice) }
        throw error
      }
    }
    state.change { $0.endLoading(slice) }
  }
}
