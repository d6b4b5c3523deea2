internal import BlockIO
internal import HostSystem
internal import Qcow2Format

/// The bitmap directory of an image, as it was read.
struct BitmapDirectory: Sendable {
  var place: BitmapDirectoryPlace
  var entries: [BitmapEntry]

  /// Reads the directory; nil if the image has no bitmaps that are in force.
  ///
  /// A directory that breaks the format is thrown as `.format`; the image can be used without it.
  init?(of header: ImageHeader, in storage: any BlockStorage) throws(ImageError) {
    let path = storage.path
    let place: BitmapDirectoryPlace?
    do { place = try header.bitmapDirectory() } catch { throw .format(path: path, error) }
    guard let place else { return nil }
    // Before memory is taken for it: the length is the image's own word.
    try Self.check(place.offset, place.byteCount, "bitmap directory", in: storage)
    let bytes = try storage.readTable(place.byteCount, at: place.offset)
    do {
      // The array outlives the call.
      entries = try unsafe BitmapEntry.parseDirectory(
        bytes.span.bytes, count: place.count, in: header.geometry)
    } catch { throw .format(path: path, error) }
    self.place = place
  }

  /// Reads the table of an entry and checks what it says.
  static func table(
    of entry: BitmapEntry, _ geometry: Geometry, in storage: any BlockStorage
  ) throws(ImageError) -> [UInt64] {
    try check(entry.tableOffset, entry.tableSize * 8, "bitmap table", in: storage)
    let table = try storage.readEntries(entry.tableSize, at: entry.tableOffset)
    do throws(FormatError) {
      for raw in table { _ = try BitmapTableEntry(rawValue: raw).cluster(in: geometry) }
    } catch { throw .format(path: storage.path, error) }
    return table
  }

  /// Whether nobody else uses the clusters that hold the directory and the tables.
  func hasItsClusters(
    _ geometry: Geometry, _ allocator: ClusterAllocator
  ) throws(ImageError) -> Bool {
    let storage = allocator.storage
    var places = [FileArea(offset: place.offset, byteCount: UInt64(place.byteCount))]
    for entry in entries where entry.isUsable {
      try Self.check(entry.tableOffset, entry.tableSize * 8, "bitmap table", in: storage)
      places.append(
        FileArea(offset: entry.tableOffset, byteCount: UInt64(entry.tableSize * 8)))
    }
    // More of them than the file has, and two share one: nobody needs to look at so many.
    let size = try onStorage { () throws(StorageError) in try storage.size() }
    var left = size >> UInt64(geometry.clusterBits) + 1
    for place in places {
      for cluster in geometry.clusters(of: place) {
        guard left > 0, try allocator.references(of: cluster) == 1 else { return false }
        left -= 1
      }
    }
    return true
  }

  /// Throws `.format` if a structure does not lie in the file as a whole.
  static func check(
    _ offset: UInt64, _ byteCount: Int, _ structure: String, in storage: any BlockStorage
  ) throws(ImageError) {
    let size = try onStorage { () throws(StorageError) in try storage.size() }
    guard offset <= size, UInt64(byteCount) <= size - offset else {
      let available = offset < size ? Int(size - offset) : 0
      throw .format(
        path: storage.path,
        .truncated(structure: structure, needed: byteCount, available: available))
    }
  }
}

/// A persistent bitmap, for people.
package struct PersistentBitmap: Sendable, Equatable {
  /// The name that somebody gave it.
  package var name: String
  /// The bytes of the disk that one bit stands for.
  package var granularity: UInt64
  /// Somebody has it open, or was killed with it: it may have missed changes.
  package var isInUse: Bool
  /// It notes the changes of the disk.
  package var isAuto: Bool

  init(_ entry: BitmapEntry) {
    name = entry.name
    granularity = 1 << UInt64(entry.granularityBits)
    isInUse = entry.flags.contains(.inUse)
    isAuto = entry.flags.contains(.auto)
  }

  /// The flags that are set, as QEMU calls them.
  package var flags: [String] { (isInUse ? ["in-use"] : []) + (isAuto ? ["auto"] : []) }
}
