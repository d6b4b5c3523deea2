import Foundation
import HostSystem

/// What a disk has to hold, told by versions: sector 7 in version 3 is a pattern made of 7 and 3.
///
/// Version 0 is what was there from the start, a byte that is the same everywhere.
final class SectorModel {
  static let sector = 512
  private(set) var device: Int32
  let count: Int
  private let initial: UInt8
  private var versions: [UInt32]
  /// Sectors of writes that failed: they hold the old version or the one that was refused.
  private var doubts: [Int: Set<UInt32>] = [:]
  private var nextVersion: UInt32 = 0
  private var buffer: UnsafeMutableRawPointer
  private static let bufferSectors = 2048

  init(device: Int32, sectors: Int, initial: UInt8) {
    self.device = device
    count = sectors
    self.initial = initial
    versions = Array(repeating: 0, count: sectors)
    buffer = .allocate(byteCount: Self.bufferSectors * Self.sector, alignment: 4096)
  }

  deinit {
    close(device)
    buffer.deallocate()
  }

  /// The same expectations of a device that is closed, and opened again by the body.
  func reopened(_ body: () throws -> Int32) throws {
    close(device)
    device = -1
    device = try body()
  }

  /// How many sectors were ever written.
  var written: Int { versions.reduce(0) { $0 + ($1 == 0 ? 0 : 1) } }

  /// Writes sectors anew; gives 0, or the errno of what was not written.
  func write(_ first: Int, _ sectors: Int) -> Int32 {
    nextVersion += 1
    let version = nextVersion
    for index in 0..<sectors {
      fill(buffer + index * Self.sector, sector: first + index, version: version)
    }
    var done = 0
    while done < sectors {
      let bytes = pwrite(
        device, buffer + done * Self.sector, (sectors - done) * Self.sector,
        off_t((first + done) * Self.sector))
      let number = bytes < 0 ? errno : 0
      let whole = max(0, bytes) / Self.sector
      for index in done..<done + whole {
        versions[first + index] = version
        doubts[first + index] = nil
      }
      done += whole
      if number != 0 {
        for index in done..<sectors { doubts[first + index, default: []].insert(version) }
        return number
      }
    }
    return 0
  }

  /// Gives sectors back; they read zero then, which no version does. Gives 0 or an errno.
  func punch(_ first: Int, _ sectors: Int) -> Int32 {
    var number: Int32 = 0
    do throws(SystemError) {
      try SystemCall.allocate(
        device, .punch, at: UInt64(first * Self.sector), length: UInt64(sectors * Self.sector))
    } catch { number = error.number }
    for index in first..<first + sectors {
      if number == 0 {
        versions[index] = .max
        doubts[index] = nil
      } else {
        doubts[index, default: []].insert(.max)
      }
    }
    return number
  }

  /// A run of sectors that hold data for sure, near a place; nil if there is none.
  func data(near place: Int, atMost most: Int) -> Range<Int>? {
    for start in [place..<count, 0..<place] {
      guard
        let first = start.first(where: { versions[$0] != 0 && versions[$0] != .max }),
        let end = (first...min(count, first + most)).first(where: {
          $0 == count || $0 == first + most || versions[$0] == 0 || versions[$0] == .max
        })
      else { continue }
      return first..<end
    }
    return nil
  }

  /// Reads the whole disk, and gives a sentence about the first sector that is wrong.
  func firstFault() -> String? {
    var place = 0
    while place < count {
      let sectors = min(Self.bufferSectors, count - place)
      let bytes = pread(device, buffer, sectors * Self.sector, off_t(place * Self.sector))
      if bytes != sectors * Self.sector {
        return "read at sector \(place): \(bytes), errno \(errno)"
      }
      for index in 0..<sectors {
        let sector = place + index
        if holds(buffer + index * Self.sector, sector, versions[sector]) { continue }
        if doubts[sector]?.contains(where: { holds(buffer + index * Self.sector, sector, $0) })
          ?? false
        {
          continue
        }
        let found = (buffer + index * Self.sector).load(as: UInt64.self)
        return "sector \(sector) should have version \(versions[sector]) and begins with \(found)"
      }
      place += sectors
    }
    return nil
  }

  private func fill(_ bytes: UnsafeMutableRawPointer, sector: Int, version: UInt32) {
    memset(bytes, Int32(pattern(sector, version)), Self.sector)
    bytes.storeBytes(of: UInt64(sector) << 32 | UInt64(version), as: UInt64.self)
  }

  private func pattern(_ sector: Int, _ version: UInt32) -> UInt8 {
    UInt8(truncatingIfNeeded: sector &* 31 &+ Int(version) &* 7) | 1
  }

  private func holds(_ bytes: UnsafeMutableRawPointer, _ sector: Int, _ version: UInt32) -> Bool {
    let (start, byte) =
      switch version {
      case 0: (0, initial)
      case .max: (0, UInt8(0))
      default: (8, pattern(sector, version))
      }
    if start == 8, bytes.load(as: UInt64.self) != UInt64(sector) << 32 | UInt64(version) {
      return false
    }
    return bytes.load(fromByteOffset: start, as: UInt8.self) == byte
      && memcmp(bytes + start, bytes + start + 1, Self.sector - start - 1) == 0
  }
}
