internal import BlockIO
package import HostSystem
internal import ImageDriver
internal import Synchronization

extension Disk {
  /// Makes room for a range, so that later writes to it do not meet a full host; no byte changes.
  ///
  /// What comes from below, and zero clusters, get clusters of their own that are filled with what
  /// the disk holds there. Persistent bitmaps note nothing, since nothing changed.
  package func preallocate(_ range: GuestRange) throws(ChainError) {
    checkInside(range.offset, range.length)
    var position = range.offset
    while position < range.end {
      let piece = GuestRange(
        offset: position, length: min(range.end - position, CopyPace.full.stepBytes))
      position += try withLayers { layers throws(ChainError) in
        try preallocateStart(of: piece, layers)
      }
    }
  }

  /// Makes room at the start of a range and tells how far it got.
  private func preallocateStart(
    of range: GuestRange, _ layers: DiskLayers
  ) throws(ChainError) -> UInt64 {
    let image = try writable(layers)
    defer { hasWrites.store(true, ordering: .relaxed) }
    let extent = try layers.active.mapping(at: range.offset, upTo: range.length)
    if case .data(let host) = extent.mapping {
      // The cluster is there; the file may still have a hole at its place.
      try onStorage { () throws(StorageError) in
        try image.data.allocate(at: host, length: extent.length)
      }
      return extent.length
    }
    let rest = GuestRange(offset: range.offset, length: extent.length)
    let step: WriteStep
    do { step = try image.beginAllocate(rest) } catch { throw .image(error) }
    switch consume step {
    case .inPlace(let host, let length):
      // A raw image's hole, or a guest was faster.
      try onStorage { () throws(StorageError) in
        try image.data.allocate(at: host, length: length)
      }
      return length
    case .allocate(let ticket):
      let guest = ticket.guest
      try fill(ticket, image, layers)
      return min(guest.end, rest.end) - rest.offset
    }
  }

  /// Moves a cluster that the active image shares with snapshots; one of its own stays where it is.
  func giveOwnPlace(
    _ cluster: GuestRange, _ image: any WritableImage, _ layers: DiskLayers
  ) throws(ChainError) {
    let step: WriteStep
    do { step = try image.beginAllocate(cluster) } catch { throw .image(error) }
    switch consume step {
    case .inPlace: return
    case .allocate(let ticket): try fill(ticket, image, layers)
    }
  }

  /// Writes a ticket's clusters with what the disk holds there.
  private func fill(
    _ ticket: consuming WriteTicket, _ image: any WritableImage, _ layers: DiskLayers
  ) throws(ChainError) {
    let guest = ticket.guest
    let host = ticket.host
    try ThreadScratch.withBuffer(.cow, byteCount: Int(guest.length)) {
      buffer throws(ChainError) in
      try readView(into: &buffer, at: guest.offset, layers)
      try onStorage { () throws(StorageError) in
        try image.data.write(buffer.bytes, at: host)
      }
    }
    // Order: the clusters hold all their bytes before any table can point to them.
    do { try ticket.commit() } catch { throw .image(error) }
  }
}
