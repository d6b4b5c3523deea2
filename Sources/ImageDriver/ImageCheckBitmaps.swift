internal import BlockIO
internal import HostSystem
internal import Qcow2Format

// Counting what the persistent bitmaps use. QEMU does not open an image whose bitmap directory breaks
// the format, so nothing but a repair without its bitmaps helps such an image.

extension CheckRun {
  /// Counts the bitmap directory, tables and clusters, if the header says that they are valid.
  mutating func countBitmaps() throws(ImageError) {
    guard header.autoclearFeatures & Self.bitmapsFeature != 0,
      let item = header.extensions.first(where: { $0.type == HeaderExtension.bitmapsType })
    else { return }
    guard item.data.count == 24 else { return addBrokenBitmaps("the extension is not 24 bytes") }
    let count = Int(BigEndian.uint32(item.data, at: 0))
    let size = BigEndian.uint64(item.data, at: 8)
    let offset = BigEndian.uint64(item.data, at: 16)
    guard size <= Self.maximumBitmapDirectoryBytes else {
      return addBrokenBitmaps("the directory is too long")
    }
    guard reference(offset, size) else { return addBrokenBitmaps("there is no directory") }
    let directory = try readBytes(Int(size), at: offset)
    var position = 0
    var found = 0
    while position < directory.count {
      guard let bitmap = bitmapTable(directory, at: position) else {
        return addBrokenBitmaps("directory entry at \(position) is not valid")
      }
      position = bitmap.end
      found += 1
      guard reference(bitmap.offset, UInt64(bitmap.size) * 8) else { continue }
      for entry in try readEntries(bitmap.size, at: bitmap.offset) where entry != 0 {
        let host = L1Entry(rawValue: entry & ~1).tableOffset
        let isValid =
          entry & 0xff00_0000_0000_01fe == 0 && geometry.offsetInCluster(host) == 0
          && (host == 0 || entry & 1 == 0)
        if !isValid {
          addBrokenBitmaps("table entry 0x\(String(entry, radix: 16))")
        } else if host != 0 {
          reference(host, UInt64(geometry.clusterSize))
        }
      }
    }
    if found != count { addBrokenBitmaps("the directory has \(found) entries, not \(count)") }
  }

  /// The autoclear bit that says that the bitmaps are valid.
  static let bitmapsFeature: UInt64 = 1
  /// The autoclear bit that says that the data file is a raw image.
  static let rawDataFileFeature: UInt64 = 2
  /// QEMU's limit: 65535 bitmaps of at most a KiB of directory each.
  private static let maximumBitmapDirectoryBytes: UInt64 = 65535 * 1024
  /// QEMU's limit for the clusters of one bitmap.
  private static let maximumBitmapBytes = 512 << 20

  private mutating func addBrokenBitmaps(_ reason: String) {
    report.addBrokenBitmaps(reason)
  }

  /// The table of the directory entry at `position` and where the next entry is; nil if it breaks the
  /// format. See "Bitmap directory" in qcow2.rst.
  ///
  ///      0  table offset 8   8 table size 4   12 flags 4   16 type 1   17 granularity bits 1
  ///     18  name length 2   20 extra data length 4   24 extra data, name, padding to 8 bytes
  private func bitmapTable(
    _ directory: [UInt8], at position: Int
  ) -> (offset: UInt64, size: Int, end: Int)? {
    guard directory.count - position >= 24 else { return nil }
    let offset = BigEndian.uint64(directory, at: position)
    let size = Int(BigEndian.uint32(directory, at: position + 8))
    let nameLength = Int(BigEndian.uint16(directory, at: position + 18))
    let extraLength = Int(BigEndian.uint32(directory, at: position + 20))
    let end = (position + 24 + extraLength + nameLength + 7) & ~7
    let flags = BigEndian.uint32(directory, at: position + 12)
    let granularity = UInt64(directory[position + 17])
    guard end <= directory.count, (1...1023).contains(nameLength), extraLength == 0, offset != 0,
      geometry.offsetInCluster(offset) == 0, size > 0,
      size <= Self.maximumBitmapBytes >> geometry.clusterBits,
      flags & ~3 == 0, directory[position + 16] == 1, (9...31).contains(granularity)
    else { return nil }
    // One that is in use may be left from another size of the disk.
    let bits = (geometry.virtualSize + (1 << granularity - 1)) >> granularity
    let clusters = (bits + UInt64(geometry.clusterSize * 8 - 1)) >> UInt64(geometry.clusterBits + 3)
    guard flags & 1 == 1 || UInt64(size) == clusters else { return nil }
    return (offset, size, end)
  }
}
