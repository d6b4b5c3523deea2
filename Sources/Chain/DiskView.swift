package import HostSystem
internal import ImageDriver
internal import Synchronization

/// A view of a disk that somebody has open: its bytes as of a layer or of an internal snapshot, or as
/// they are now.
///
/// Any number of threads may read at once. Ranges have to lie inside the view.
package final class DiskView: Sendable {
  /// Which view it is.
  package let id: ViewID
  private let disk: Disk
  // Nil for the disk as it is now.
  let held: HeldLayers?
  private let isClosed = Atomic<Bool>(false)

  /// The disk as it is now.
  init(of disk: Disk) {
    id = .now
    self.disk = disk
    held = nil
  }

  /// A view that ends the use of its layers when it is closed.
  init(_ id: ViewID, of disk: Disk, _ held: HeldLayers) {
    self.id = id
    self.disk = disk
    self.held = held
  }

  deinit { close() }

  /// The size in bytes. Only the disk as it is now may get another one.
  package var size: UInt64 { held?.size ?? disk.virtualSize }

  /// Reads bytes of the view, as many as the span holds.
  package func read(
    into bytes: inout MutableRawSpan, at offset: GuestOffset
  ) throws(ChainError) {
    guard let held else { return try disk.read(into: &bytes, at: offset) }
    // The gate keeps what is read from being freed, as it does for readers of the disk.
    try disk.withLayers { _ throws(ChainError) in
      var done = 0
      while done < bytes.byteCount {
        let position = offset + UInt64(done)
        let extent = try held.extent(at: position, upTo: UInt64(bytes.byteCount - done))
        let length = Int(extent.length)
        var part = bytes.slice(done..<done + length)
        if let layer = extent.layer {
          try disk.read(extent.mapping, of: layer, at: position, into: &part)
        } else {
          part.fillWithZeroes()
        }
        done += length
      }
    }
  }

  /// The first offset at or after this one that some layer holds data for, nil if there is none.
  package func nextData(from offset: GuestOffset) throws(ChainError) -> GuestOffset? {
    guard let held else { return try disk.nextData(from: offset) }
    return try find(data: true, from: offset, held)
  }

  /// The first offset at or after this one that reads zero by the tables; the end counts as a hole.
  /// Nil at or beyond the end.
  package func nextHole(from offset: GuestOffset) throws(ChainError) -> GuestOffset? {
    guard let held else { return try disk.nextHole(from: offset) }
    if offset.rawValue >= held.size { return nil }
    return try find(data: false, from: offset, held) ?? GuestOffset(rawValue: held.size)
  }

  private func find(
    data wanted: Bool, from offset: GuestOffset, _ held: HeldLayers
  ) throws(ChainError) -> GuestOffset? {
    try disk.find(data: wanted, from: offset, end: held.size) {
      position, limit, _ throws(ChainError) in
      let extent = try held.extent(at: position, upTo: limit)
      return (extent.isData, extent.length)
    }
  }

  /// Lets go of the layers. No other call may be in progress, and none may follow.
  package func close() {
    if !isClosed.exchange(true, ordering: .acquiringAndReleasing) { held?.end() }
  }
}
