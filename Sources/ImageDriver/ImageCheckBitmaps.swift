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
    // A writer gives bitmaps up whose tables it cannot read whole, and then their clusters are leaked.
    let size = try onStorage { () throws(StorageError) in try storage.size() }
    func isCut(_ offset: UInt64, _ byteCount: UInt64) -> Bool {
      offset > size || byteCount > size - offset
    }
    if isCut(place.offset, UInt64(place.byteCount)) {
      return report.addBrokenBitmaps("the directory ends behind the file")
    }
    let directory = try readBytes(place.byteCount, at: place.offset)
    let bitmaps: [BitmapEntry]
    do {
      // The array outlives the call.
      bitmaps = try unsafe BitmapEntry.parseDirectory(
        directory.span.bytes, count: place.count, in: geometry)
    } catch { return addBrokenBitmaps(error) }
    for bitmap in bitmaps where reference(bitmap.tableOffset, UInt64(bitmap.tableSize) * 8) {
      if isCut(bitmap.tableOffset, UInt64(bitmap.tableSize) * 8) {
        report.addBrokenBitmaps("the table of \(bitmap.name) ends behind the file")
      }
      for raw in try readEntries(bitmap.tableSize, at: bitmap.tableOffset) where raw != 0 {
        do throws(FormatError) {
          let host = try BitmapTableEntry(rawValue: raw).cluster(in: geometry)
          if let host { reference(host, UInt64(geometry.clusterSize)) }
        } catch { addBrokenBitmaps(error) }
      }
    }
  }

  private mutating func addBrokenBitmaps(_ reason: FormatError) {
    report.addBrokenBitmaps(reason.description)
  }
}
