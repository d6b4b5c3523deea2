internal import BlockIO
package import HostSystem
internal import ImageDriver
internal import Synchronization

// A write is a ticket. The active image says for each piece whether it has room already (written in
// place) or hands out whole new clusters; what the guest does not bring for them is read through the
// disk, so that each ticket costs one write to the host. A second writer of the same cluster waits
// inside `beginWrite` until the first has committed, and then writes in place.

extension Disk {
  /// Writes bytes to the disk.
  package func write(_ bytes: RawSpan, at offset: GuestOffset) throws(ChainError) {
    checkInside(offset, UInt64(bytes.byteCount))
    if bytes.byteCount == 0 { return }
    if configuration.detectZeroes != .off, bytes.isAllZero {
      let mode: ZeroMode = configuration.detectZeroes == .unmap ? .unmap : .keepAllocation
      return try writeZeroes(
        GuestRange(offset: offset, length: UInt64(bytes.byteCount)), mode: mode, .write)
    }
    try serve(.write, bytes: bytes.byteCount) { () throws(ChainError) in
      try withLayers { layers throws(ChainError) in
        try write(bytes, at: offset, layers)
      }
      load.wrote(to: offset.rawValue + UInt64(bytes.byteCount))
    }
  }

  /// Writes through the disk, under the gate.
  func write(
    _ bytes: RawSpan, at offset: GuestOffset, _ layers: DiskLayers
  ) throws(ChainError) {
    let image = try writable(layers)
    defer { hasWrites.store(true, ordering: .relaxed) }
    var done = 0
    while done < bytes.byteCount {
      let range = GuestRange(
        offset: offset + UInt64(done), length: UInt64(bytes.byteCount - done))
      let step: WriteStep
      do { step = try image.beginWrite(range) } catch { throw .image(error) }
      switch consume step {
      case .inPlace(let host, let length):
        let length = Int(length)
        do {
          try image.data.write(bytes.extracting(done..<done + length), at: host)
        } catch { throw .storage(error) }
        done += length
      case .allocate(let ticket):
        let length = Int(min(ticket.guest.end.rawValue, range.end.rawValue) - range.offset.rawValue)
        try fill(
          ticket, with: bytes.extracting(done..<done + length), at: range.offset, image, layers)
        done += length
      }
    }
  }

  /// Writes a ticket's range: the new bytes, and around them what the disk holds now.
  func fill(
    _ ticket: consuming WriteTicket, with bytes: RawSpan, at offset: GuestOffset,
    _ image: any WritableImage, _ layers: DiskLayers
  ) throws(ChainError) {
    let guest = ticket.guest
    let host = ticket.host
    let head = Int(offset.rawValue - guest.offset.rawValue)
    let tail = Int(guest.length) - head - bytes.byteCount
    if head == 0, tail == 0 {
      do { try image.data.write(bytes, at: host) } catch { throw .storage(error) }
    } else {
      try ThreadScratch.withBuffer(.cow, byteCount: Int(guest.length)) {
        buffer throws(ChainError) in
        var part = buffer.slice(0..<head)
        try readView(into: &part, at: guest.offset, layers)
        part = buffer.slice(head + bytes.byteCount..<buffer.byteCount)
        try readView(into: &part, at: offset + UInt64(bytes.byteCount), layers)
        part = buffer.slice(head..<head + bytes.byteCount)
        part.copy(bytes)
        try onStorage { () throws(StorageError) in
          try image.data.write(buffer.bytes, at: host)
        }
      }
    }
    // Order: the range holds all its bytes before any table can point to them.
    do { try ticket.commit() } catch { throw .image(error) }
  }

  /// Reads a part of a cluster that may reach beyond the end of the disk, where there are zeroes.
  func readView(
    into bytes: inout MutableRawSpan, at offset: GuestOffset, _ layers: DiskLayers
  ) throws(ChainError) {
    let end = layers.active.image.virtualSize
    let inside = offset.rawValue < end ? min(UInt64(bytes.byteCount), end - offset.rawValue) : 0
    if inside > 0 {
      var part = bytes.slice(0..<Int(inside))
      try read(into: &part, at: offset, layers)
    }
    if Int(inside) < bytes.byteCount {
      var part = bytes.slice(Int(inside)..<bytes.byteCount)
      part.fillWithZeroes()
    }
  }
}
