// A raw file as an image: every byte lives at its own offset. Holes of the file read zero and say so,
// which lets streaming and SEEK_HOLE skip them.

package import BlockIO
package import HostSystem

/// A raw file, as the active image or as a base.
package final class RawImage: WritableImage {
  package let storage: any BlockStorage
  package let virtualSize: UInt64

  /// Takes a file as a disk; a size that is no multiple of 512 is rounded up, as in QEMU.
  package init(storage: any BlockStorage) throws(ImageError) {
    self.storage = storage
    let size = try onStorage { () throws(StorageError) in try storage.size() }
    guard size <= UInt64(Int64.max) - 511 else {
      throw .storage(.outOfRange(path: storage.path, offset: .zero, length: size))
    }
    virtualSize = (size + 511) & ~511
  }

  package var data: any BlockStorage { storage }
  package var path: String { storage.path }
  package var formatName: String { "raw" }
  package var clusterSize: Int { 64 << 10 }
  package var allocationUnit: Int { clusterSize }
  package var backingReference: BackingReference? { nil }
  package var isReadOnly: Bool { storage.isReadOnly }
  package var internalSnapshotCount: Int { 0 }
  package var hasZeroClusters: Bool { true }
  package var hasFreedClusters: Bool { false }

  package func mapping(
    at offset: GuestOffset, upTo limit: UInt64
  ) throws(ImageError) -> MappedExtent {
    let host = HostOffset(offset.rawValue)
    return try onStorage { () throws(StorageError) in
      guard let data = try storage.nextData(at: host) else {
        return MappedExtent(mapping: .zero, length: limit)
      }
      if data > host {
        return MappedExtent(mapping: .zero, length: min(limit, data - host))
      }
      let hole = try storage.nextHole(at: host) ?? host + limit
      return MappedExtent(mapping: .data(host), length: min(limit, max(hole - host, 1)))
    }
  }

  package func read(
    _ mapping: Mapping, skip: Int, into buffer: inout MutableRawSpan
  ) throws(ImageError) {
    switch mapping {
    case .data(let host):
      do { try storage.readZeroFilled(into: &buffer, at: host + UInt64(skip)) } catch {
        throw .storage(error)
      }
    case .zero, .unallocated: buffer.fillWithZeroes()
    case .compressed: preconditionFailure("a raw image has no compressed clusters")
    }
  }

  package func beginWrite(_ range: GuestRange) throws(ImageError) -> WriteStep {
    if isReadOnly { throw .readOnly(path: path) }
    return .inPlace(HostOffset(range.offset.rawValue), range.length)
  }

  package func beginAllocate(_ range: GuestRange) throws(ImageError) -> WriteStep {
    try beginWrite(range)
  }

  package func withoutRecording<Failure: Error>(
    _ body: () throws(Failure) -> Void
  ) throws(Failure) {
    try body()
  }

  package func beginPopulate(_ range: GuestRange) throws(ImageError) -> WriteTicket? { nil }

  package func populateZeroes(_ range: GuestRange) throws(ImageError) -> UInt64 { 0 }

  package func writeZeroes(
    _ range: GuestRange, mode: ZeroMode, below: BelowContents
  ) throws(ImageError) -> UInt64 {
    if isReadOnly { throw .readOnly(path: path) }
    try storage.makeZero(
      at: HostOffset(range.offset.rawValue), length: range.length, mode: mode)
    return range.length
  }

  package func flush() throws(ImageError) {
    try onStorage { () throws(StorageError) in try storage.flush() }
  }

  package func releaseFreed() throws(ImageError) {}

  package func setBacking(_ reference: BackingReference?) throws(ImageError) {
    throw .unsupported(path: path, feature: "a backing file of a raw image")
  }

  package func close() throws(ImageError) {
    if !isReadOnly { try flush() }
  }
}

extension BlockStorage {
  /// Makes a range read zero, with or without giving its space back.
  func makeZero(at start: HostOffset, length: UInt64, mode: ZeroMode) throws(ImageError) {
    let end = start + length
    var host = start
    try onStorage { () throws(StorageError) in
      guard mode == .unmap else { return try writeZeroes(at: host, length: length) }
      try discard(at: host, length: length)
      // A discard is a wish. Only what is a hole now is known to read zero.
      while host < end, let data = try nextData(at: host), data < end {
        let hole = try nextHole(at: data) ?? end
        host = min(max(hole, data + 1), end)
        try writeZeroes(at: data, length: host - data)
      }
    }
  }
}

/// Runs calls on storage and wraps what they throw.
func onStorage<Result>(
  _ body: () throws(StorageError) -> Result
) throws(ImageError) -> Result {
  do { return try body() } catch { throw .storage(error) }
}
