// The two bits of a header that say how far an image can be trusted.
//
//                       first claim or free                     close
//     clean -----------------------------------> dirty ----------------------> clean
//       |                                          |          refcounts are true again
//       '------------ impossible metadata ---------'--> corrupt, until a repair
//
// Dirty: clusters are claimed ahead of use, and freed after use, so a crash leaves some that are counted
// and not used. The bit tells whoever opens the image next, chainfs or QEMU, to count anew and give them
// back. It is durable before the first refcount that is ahead; it goes when the refcounts are true and
// durable, and not at all if anything was left behind. Readers do not care. Writes in place need none.
//
// Corrupt: a table says what cannot be, so nothing that relies on tables may be written any more. The bit
// is set at once and durable; what the guest reads is still served as far as it can be proved.
//
// Version 2 has neither bit: a crash leaks until a check repairs it, and an image found corrupt is
// refused for as long as it is open.

internal import BlockIO
internal import HostSystem
internal import Qcow2Format
internal import Synchronization

/// Keeps the dirty and the corrupt bit of one image that is open for writing.
final class ImageMarks: Sendable {
  private struct State: Sendable {
    /// Something is counted that nobody uses, and will stay so.
    var hasLeaks = false
    /// The first thing that cannot be.
    var corruption: String?
  }

  private let storage: any BlockStorage
  private let hasBits: Bool
  private let state = Monitor(State())
  // Read before each claim; true only when the bit is durable, so acquire and release suffice.
  private let isDirty: Atomic<Bool>
  private let isStopped = Atomic(false)

  init(storage: any BlockStorage, header: ImageHeader) {
    self.storage = storage
    hasBits = header.geometry.version >= 3
    isDirty = Atomic(header.isDirty)
  }

  /// Makes durable that refcounts may be ahead from now on.
  func setDirty() throws(ImageError) {
    guard hasBits, !isDirty.load(ordering: .acquiring) else { return }
    try state.withLock { _ throws(ImageError) in
      if isDirty.load(ordering: .relaxed) { return }
      // Order: on disk before the first refcount that is ahead of use.
      try change { $0 | ImageHeader.IncompatibleFeature.dirty }
      isDirty.store(true, ordering: .releasing)
    }
  }

  /// Takes the dirty bit away. All refcounts are true and durable.
  func clearDirty() throws(ImageError) {
    guard hasBits, isDirty.load(ordering: .acquiring) else { return }
    try state.withLock { state throws(ImageError) in
      if state.hasLeaks || state.corruption != nil { return }
      // Whatever the disk has if this fails, the next claim sets it again.
      isDirty.store(false, ordering: .releasing)
      try change { $0 & ~ImageHeader.IncompatibleFeature.dirty }
    }
  }

  /// Notes that clusters stay counted which nobody uses: the bit must outlive this process.
  func keepDirty() { state.withLock { $0.hasLeaks = true } }

  // MARK: - Corruption

  /// What was found that cannot be; nil in an image that may be written to.
  var corruption: String? {
    guard isStopped.load(ordering: .acquiring) else { return nil }
    return state.withLock { $0.corruption }
  }

  /// Marks the image as corrupt, and stops its writes.
  func setCorrupt(_ reason: String) {
    state.withLock { state in
      if state.corruption != nil { return }
      state.corruption = reason
      isStopped.store(true, ordering: .releasing)
      guard hasBits else { return }
      do throws(ImageError) { try change { $0 | ImageHeader.IncompatibleFeature.corrupt } } catch {
        // The image is stopped all the same; the caller hears of what was found.
      }
    }
  }

  // MARK: - The header

  /// Keeps the bits as they are while `body` rewrites the sector that they are in.
  func withHeader<Result: Sendable>(
    _ body: () throws(ImageError) -> Result
  ) throws(ImageError) -> Result {
    try state.withLock { _ throws(ImageError) in try body() }
  }

  private func change(_ body: (UInt64) -> UInt64) throws(ImageError) {
    let place = ImageHeader.incompatibleFeaturesOffset
    let old = try storage.readEntries(1, at: place)
    let new = old.map(body)
    if new == old { return }
    // Order: synced by itself; eight aligned bytes never tear.
    try storage.replaceEntries(old, with: new, at: place)
    try onStorage { () throws(StorageError) in try storage.flush() }
  }
}

extension Qcow2Image {
  /// Stops the writes of an image if an error says that its tables are impossible.
  func noted(_ error: ImageError) -> ImageError {
    if isReadOnly { return error }
    switch error {
    case .format, .corrupt, .storage(.truncated): marks.setCorrupt(error.description)
    case .storage, .unsupported, .secretNeeded, .encryption, .needsRepair, .readOnly, .tablesFull,
      .bitmapInTheWay, .diskTooLarge:
      break
    }
    return error
  }

  /// Counts the clusters of an image anew that was not closed, and gives the header as it is then.
  static func recover(
    _ storage: any BlockStorage
  ) throws(ImageError) -> ImageHeader {
    let report = try ImageCheck.recover(storage: storage)
    guard report.corruptions == report.incompleteSnapshots, report.checkErrors == 0 else {
      throw .needsRepair(
        path: storage.path,
        reason: "the image was not closed, and some of it cannot be mended")
    }
    return try ImageHeader.read(from: storage)
  }
}
