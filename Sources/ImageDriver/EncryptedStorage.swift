// Guest data that is encrypted on its way to a file and decrypted on its way back.
//
//     guest's bytes --copied--> the thread's buffer --encrypted--> the file, whole sectors
//     the file --> the reader's buffer, or the thread's for parts of sectors --decrypted in place-->
//
// The number of a sector is that of its place in the file, so bytes cannot be moved there without being
// encrypted anew. A hole of the file, and what lies behind its end, reads as what zero bytes
// decrypt to: noise, in QEMU too. Nobody asks for it: clusters are written as a whole before a table
// points to them. Zeroes are therefore written as bytes, and there are no holes to be found.

package import BlockIO
package import Encryption
package import HostSystem

/// The guest data of an encrypted image, over the file that holds it.
package final class EncryptedStorage: BlockStorage {
  /// The file, with the bytes as they are there.
  package let base: any BlockStorage
  private let cipher: SectorCipher?
  private let claims = SectorClaims()

  private static let sectorSize = UInt64(SectorCipher.sectorSize)
  private static let pieceSize: UInt64 = 1 << 20
  private static let largestEnd = UInt64(Int64.max) / sectorSize * sectorSize

  /// Puts a cipher before a file; without one every call for bytes is refused.
  package init(_ base: any BlockStorage, cipher: SectorCipher?) {
    self.base = base
    self.cipher = cipher
  }

  /// The same cipher before another open file of the same bytes.
  package func over(_ base: any BlockStorage) -> EncryptedStorage {
    EncryptedStorage(base, cipher: cipher)
  }

  /// There is a key: bytes can be read and written.
  package var isOpen: Bool { cipher != nil }

  package var path: String { base.path }
  package var isReadOnly: Bool { base.isReadOnly }
  package var identity: StorageIdentity { base.identity }
  package var highestWritten: UInt64 { base.highestWritten }

  package func size() throws(StorageError) -> UInt64 { try base.size() }
  package func allocatedBytes() throws(StorageError) -> UInt64 { try base.allocatedBytes() }
  package func truncate(to size: UInt64) throws(StorageError) { try base.truncate(to: size) }
  package func flush() throws(StorageError) { try base.flush() }
  package func becomeBacking() { base.becomeBacking() }
  package func refuseWrites() { base.refuseWrites() }
  package func close() { base.close() }

  package func allocate(at offset: HostOffset, length: UInt64) throws(StorageError) {
    try base.allocate(at: offset, length: length)
  }

  package func nextData(at offset: HostOffset) throws(StorageError) -> HostOffset? {
    offset.rawValue < (try size()) ? offset : nil
  }

  package func nextHole(at offset: HostOffset) throws(StorageError) -> HostOffset? {
    let end = HostOffset(try size())
    return offset < end ? end : nil
  }

  package func share(
    from source: any BlockStorage, at sourceOffset: HostOffset, to offset: HostOffset,
    length: UInt64
  ) throws(StorageError) -> Bool { false }

  // MARK: - Bytes

  /// Fills all of `buffer`, also behind the end of the file.
  package func read(
    into buffer: inout MutableRawSpan, at offset: HostOffset
  ) throws(StorageError) -> Int {
    let cipher = try opened()
    let count = buffer.byteCount
    if count == 0 { return 0 }
    let sectors = try sectors(at: offset, length: UInt64(count))
    if offset.rawValue % Self.sectorSize == 0, UInt64(count) % Self.sectorSize == 0 {
      try readSectors(into: &buffer, sectors, cipher)
      return count
    }
    var done = 0
    while done < count {
      let piece = Piece(at: offset.rawValue + UInt64(done), upTo: UInt64(count - done))
      try ThreadScratch.withBuffer(.cipher, byteCount: piece.byteCount) {
        scratch throws(StorageError) in
        try readSectors(into: &scratch, piece.sectors, cipher)
        buffer.copy(scratch.bytes.extracting(piece.wanted), at: done)
      }
      done += piece.wanted.count
    }
    return count
  }

  package func write(
    _ bytes: RawSpan, at offset: HostOffset, intent: WriteIntent
  ) throws(StorageError) {
    let cipher = try opened()
    if bytes.byteCount == 0 { return }
    let sectors = try sectors(at: offset, length: UInt64(bytes.byteCount))
    try claims.during(.writing, of: sectors) { () throws(StorageError) in
      var done = 0
      while done < bytes.byteCount {
        let piece = Piece(
          at: offset.rawValue + UInt64(done), upTo: UInt64(bytes.byteCount - done))
        let part = bytes.extracting(done..<done + piece.wanted.count)
        try ThreadScratch.withBuffer(.cipher, byteCount: piece.byteCount) {
          scratch throws(StorageError) in
          try fillEdges(of: &scratch, piece, cipher)
          scratch.copy(part, at: piece.wanted.lowerBound)
          cipher.encrypt(&scratch, firstSector: piece.sectors.lowerBound)
          try base.write(scratch.bytes, at: piece.start, intent: intent)
        }
        done += piece.wanted.count
      }
    }
  }

  /// Brings in the sectors that a write changes only in part.
  private func fillEdges(
    of scratch: inout MutableRawSpan, _ piece: Piece, _ cipher: SectorCipher
  ) throws(StorageError) {
    let last = piece.byteCount - SectorCipher.sectorSize
    let cutsFirst = piece.wanted.lowerBound > 0
    let cutsLast = piece.wanted.upperBound < piece.byteCount
    if cutsFirst || cutsLast && last == 0 {
      var edge = scratch.slice(0..<SectorCipher.sectorSize)
      try decrypt(into: &edge, firstSector: piece.sectors.lowerBound, cipher)
    }
    if cutsLast, last > 0 {
      var edge = scratch.slice(last..<piece.byteCount)
      try decrypt(into: &edge, firstSector: piece.sectors.upperBound - 1, cipher)
    }
  }

  private func readSectors(
    into buffer: inout MutableRawSpan, _ sectors: Range<UInt64>, _ cipher: SectorCipher
  ) throws(StorageError) {
    try claims.during(.reading, of: sectors) { () throws(StorageError) in
      try decrypt(into: &buffer, firstSector: sectors.lowerBound, cipher)
    }
  }

  private func decrypt(
    into buffer: inout MutableRawSpan, firstSector: UInt64, _ cipher: SectorCipher
  ) throws(StorageError) {
    try base.readZeroFilled(into: &buffer, at: HostOffset(firstSector * Self.sectorSize))
    cipher.decrypt(&buffer, firstSector: firstSector)
  }

  /// Writes encrypted zeroes: no hole reads as one.
  package func writeZeroes(at offset: HostOffset, length: UInt64) throws(StorageError) {
    _ = try sectors(at: offset, length: length)
    let zeroes = [UInt8](repeating: 0, count: Int(min(length, 256 << 10)))
    var done: UInt64 = 0
    while done < length {
      let count = Int(min(length - done, UInt64(zeroes.count)))
      try write(zeroes.rawSpan.extracting(0..<count), at: offset + done, intent: .data)
      done += UInt64(count)
    }
  }

  /// Gives whole sectors back; of a sector that is only touched, the rest has to stay readable.
  package func discard(at offset: HostOffset, length: UInt64) throws(StorageError) {
    let sectors = try sectors(at: offset, length: length)
    let start = offset.roundedUp(to: Self.sectorSize)
    let end = (offset + length).roundedDown(to: Self.sectorSize)
    if start >= end { return }
    try claims.during(.writing, of: sectors) { () throws(StorageError) in
      try base.discard(at: start, length: end - start)
    }
  }

  private func opened() throws(StorageError) -> SectorCipher {
    guard let cipher else { throw .encrypted(path: path) }
    return cipher
  }

  /// The sectors that a range touches, which has to lie inside of what a file can hold.
  private func sectors(
    at offset: HostOffset, length: UInt64
  ) throws(StorageError) -> Range<UInt64> {
    guard length <= Self.largestEnd, offset.rawValue <= Self.largestEnd - length else {
      throw .outOfRange(path: path, offset: offset, length: length)
    }
    return Self.sectors(from: offset.rawValue, to: offset.rawValue + length)
  }

  private static func sectors(from start: UInt64, to end: UInt64) -> Range<UInt64> {
    start / sectorSize..<(end + sectorSize - 1) / sectorSize
  }

  /// As much of a transfer as goes through the thread's buffer at once: whole sectors, and which of
  /// their bytes are wanted.
  private struct Piece {
    var sectors: Range<UInt64>
    var wanted: Range<Int>

    init(at offset: UInt64, upTo length: UInt64) {
      let start = offset / sectorSize * sectorSize
      let end = min(offset + length, start + pieceSize)
      sectors = EncryptedStorage.sectors(from: start, to: end)
      wanted = Int(offset - start)..<Int(end - start)
    }

    var start: HostOffset { HostOffset(sectors.lowerBound * sectorSize) }
    var byteCount: Int { sectors.count * SectorCipher.sectorSize }
  }
}
