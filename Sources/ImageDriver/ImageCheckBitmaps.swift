internal import BlockIO
internal import HostSystem
internal import Qcow2Format

// Counting what the persistent bitmaps use. QEMU does not open an image whose bitmap directory breaks
// the format, so nothing but a repair without its bitmaps helps such an image.

extension CheckRun {
  /// Counts the bitmap directory, tables and clusters, if the header says that they are valid.
  mutating func countBitmaps() throws(ImageError) {
    let place: BitmapDirectoryPlace?
    do { place = try header.bitmapDirectory() } catch { return addBrokenBitmaps(error) }
    guard let place else { return }
    guard reference(place.offset, UInt64(place.byteCount)) else {
      return report.addBrokenBitmaps("there is no directory")
    }
    // As a writer reads it: one that it cannot read it gives up, and then the clusters are leaked.
    let bitmaps: [BitmapEntry]
    do throws(ImageError) {
      bitmaps = try BitmapDirectory(of: header, in: storage)?.entries ?? []
    } catch { return try addBrokenBitmaps(error) }
    for bitmap in bitmaps where reference(bitmap.tableOffset, UInt64(bitmap.tableSize) * 8) {
      do throws(ImageError) {
        try BitmapDirectory.check(
          bitmap.tableOffset, bitmap.tableSize * 8, "bitmap table", in: storage)
      } catch { try addBrokenBitmaps(error) }
      for raw in try readEntries(bitmap.tableSize, at: bitmap.tableOffset) where raw != 0 {
        do throws(FormatError) {
          let host = try BitmapTableEntry(rawValue: raw).cluster(in: geometry)
          if let host { reference(host, UInt64(geometry.clusterSize)) }
        } catch { addBrokenBitmaps(error) }
      }
    }
  }

  private mutating func addBrokenBitmaps(_ error: ImageError) throws(ImageError) {
    guard case .format(_, let reason) = error else { throw error }
    addBrokenBitmaps(reason)
  }

  private mutating func addBrokenBitmaps(_ reason: FormatError) {
    report.addBrokenBitmaps(reason.description)
  }
}
