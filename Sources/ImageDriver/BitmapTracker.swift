// Persistent dirty bitmaps while the image is written to.
//
//     valid on disk --- first change by the guest: in_use, durable ---> in use on disk, bits in memory
//          ^                                                                  |            |
//          '------- clean close: bits, then in_use taken back ----------------'        a crash
//                                                                                          v
//                                                                      inconsistent, left as it is
//
// A bitmap that is `auto` notes every write, zeroing and discard of the guest, before it happens.
// Memory holds only what was noted since the last store, one bit a granule; a store lays that over the
// bits on disk. Streams, preallocation and the hiding of what lies below a grown disk change no byte
// that the guest knows, so they note nothing, as in QEMU.
//
// Left alone: bitmaps without `auto`, which nobody has to note anything in, and those that are in use
// already when the image is opened. Their owner was killed; nobody knows what they have missed.
//
// The image gives up its bitmaps, by clearing the autoclear bit before its first write, if it cannot
// keep them all: the directory or a table that is followed breaks the format or lies in clusters that
// are not its own (it is changed in place, and the guest's bytes may be there), or an `auto` bitmap has
// extra data that only its maker understands.
//
// Bitmaps whose bits would take more than a GiB together are not noted: such an image is refused. The
// host gives memory only for the parts of a bitmap where something is noted.

internal import BlockIO
internal import HostSystem
internal import Qcow2Format
internal import Synchronization

/// The bitmaps of one image that is open for writing.
final class BitmapTracker: Sendable {
  /// Notes for one bitmap.
  struct Recorder: Sendable {
    /// The bitmap's index in the directory.
    var index: Int
    var granularityBits: Int
    var bits: AtomicBits
  }

  /// What is known of the bitmaps on disk.
  struct State: Sendable {
    var entries: [BitmapEntry]
    /// The tables that were read, by index in the directory.
    var tables: [Int: [UInt64]]
    /// Which bitmaps were marked as in use here, so that their bits are ours to vouch for.
    var marked: Set<Int> = []
    /// Host clusters of bits that the disk points to no more.
    var dropped: [UInt64] = []
  }

  let storage: any BlockStorage
  let recorders: [Recorder]
  let state: Monitor<State>
  private let place: BitmapDirectoryPlace
  // Acquiring and releasing: who sees it set knows that in_use is on disk.
  private let isRecording = Atomic<Bool>(false)
  // Relaxed: it changes while nobody else uses the image.
  private let isPaused = Atomic<Bool>(false)

  /// The most bytes of bits that one image keeps in memory.
  static let maximumBytes: UInt64 = 1 << 30

  /// Reads the bitmaps of an image; nil if it has none, or none that can be kept true.
  ///
  /// Throws if bits would take more than `maximumBytes` of memory.
  convenience init?(
    header: ImageHeader, allocator: ClusterAllocator,
    maximumBytes: UInt64 = BitmapTracker.maximumBytes
  ) throws(ImageError) {
    let storage = allocator.storage
    let directory: BitmapDirectory
    var tables: [Int: [UInt64]] = [:]
    var byteCount: UInt64 = 0
    do throws(ImageError) {
      guard let found = try BitmapDirectory(of: header, in: storage) else { return nil }
      directory = found
      guard try found.hasItsClusters(header.geometry, allocator) else { return nil }
      for (index, entry) in found.entries.enumerated() where entry.isValidAuto {
        // What has to be noted and cannot be is void from the first write on.
        guard entry.isUsable else { return nil }
        // Before memory is taken for the table: tables may lie over each other in a small file.
        byteCount += entry.bitCount(in: header.geometry) / 8 + 8
        guard byteCount <= maximumBytes else { throw Self.tooLarge(path: storage.path) }
        tables[index] = try BitmapDirectory.table(of: entry, header.geometry, in: storage)
      }
    } catch {
      switch error {
      case .format, .corrupt: return nil
      default: throw error
      }
    }
    try self.init(directory, tables, header.geometry, storage)
  }

  private static func tooLarge(path: String) -> ImageError {
    .unsupported(path: path, feature: "writing with more than 1 GiB of persistent bitmaps")
  }

  private init(
    _ directory: BitmapDirectory, _ tables: [Int: [UInt64]], _ geometry: Geometry,
    _ storage: any BlockStorage
  ) throws(ImageError) {
    var recorders: [Recorder] = []
    for (index, entry) in directory.entries.enumerated() where entry.isValidAuto {
      guard let bits = AtomicBits(count: Int(entry.bitCount(in: geometry))) else {
        throw Self.tooLarge(path: storage.path)
      }
      recorders.append(Recorder(index: index, granularityBits: entry.granularityBits, bits: bits))
    }
    self.storage = storage
    self.recorders = recorders
    place = directory.place
    state = Monitor(State(entries: directory.entries, tables: tables))
  }

  /// Notes a change that the guest is about to make.
  ///
  /// When it returns, a crash can leave no bitmap that claims to be true and misses the change.
  func record(_ range: GuestRange) throws(ImageError) {
    if recorders.isEmpty || range.isEmpty || isPaused.load(ordering: .relaxed) { return }
    if !isRecording.load(ordering: .acquiring) { try begin() }
    let last = range.end.rawValue - 1
    for recorder in recorders {
      let shift = UInt64(recorder.granularityBits)
      recorder.bits.set(Int(range.offset.rawValue >> shift)...Int(last >> shift))
    }
  }

  private func begin() throws(ImageError) {
    try state.withLock { state throws(ImageError) in
      if isRecording.load(ordering: .relaxed) { return }
      // Order: in_use is durable before the first change of a byte that the bitmaps are about.
      try mark(recorders.map(\.index), &state)
      isRecording.store(true, ordering: .releasing)
    }
  }

  /// Ends the noting, until the next change begins it anew; the notes stay.
  func end() { isRecording.store(false, ordering: .relaxed) }

  /// Runs a body whose changes are not the guest's. Nobody else may use the image meanwhile.
  func withoutRecording<Failure: Error>(_ body: () throws(Failure) -> Void) throws(Failure) {
    isPaused.store(true, ordering: .relaxed)
    defer { isPaused.store(false, ordering: .relaxed) }
    try body()
  }

  // MARK: - The directory on disk

  /// Marks bitmaps as in use, durably.
  func mark(_ indexes: [Int], _ state: inout State) throws(ImageError) {
    for index in indexes {
      let old = state.entries[index].sizeAndFlags
      state.entries[index].flags.insert(.inUse)
      state.marked.insert(index)
      try writeSizeAndFlags(of: state.entries[index], replacing: old)
    }
    try onStorage { () throws(StorageError) in try storage.flush() }
  }

  /// Writes the word of an entry that holds its table's size and its flags; it never tears.
  func writeSizeAndFlags(of entry: BitmapEntry, replacing old: UInt64) throws(ImageError) {
    try replaceWord(
      entry.sizeAndFlags, replacing: old, at: place.offset + UInt64(entry.position + 8))
  }

  /// Writes the word of an entry that says where its table is; it never tears.
  func writeTableOffset(of entry: BitmapEntry, replacing old: UInt64) throws(ImageError) {
    try replaceWord(entry.tableOffset, replacing: old, at: place.offset + UInt64(entry.position))
  }

  private func replaceWord(
    _ new: UInt64, replacing old: UInt64, at offset: UInt64
  ) throws(ImageError) {
    try storage.replaceEntries([old], with: [new], at: offset)
  }
}

extension BitmapEntry {
  /// True if the bitmap is to note changes and has missed none.
  var isValidAuto: Bool { flags.contains(.auto) && !flags.contains(.inUse) }

  /// How many bits the bitmap has.
  func bitCount(in geometry: Geometry) -> UInt64 {
    Self.bitCount(for: geometry.virtualSize, granularityBits: granularityBits)
  }
}
