// An internal snapshot as an image of its own: the disk as it was, over the same layers below.

package import BlockIO
package import HostSystem
internal import Qcow2Format

/// An internal snapshot of an open image, for reading.
///
/// It is a view of the moment it is made: what a stream fills in later it may still call unallocated,
/// so it must not outlive the layers that are below the image then. VM state is never part of it.
package final class SnapshotImage: Image {
  private let image: Qcow2Image
  private let geometry: Geometry
  private let state: Monitor<MetadataState>

  /// The snapshot with this id, or else with this name, as qemu-img looks for one; nil if there is
  /// none.
  package convenience init?(named name: String, of image: Qcow2Image) throws(ImageError) {
    let places = try image.snapshotPlaces()
    let found = places.first { $0.id == name } ?? places.first { $0.name == name }
    guard let place = found else { return nil }
    try self.init(place, of: image)
  }

  /// The snapshot at one of the image's ``Qcow2Image/snapshotPlaces()``.
  package init(_ place: SnapshotPlace, of image: Qcow2Image) throws(ImageError) {
    self.image = image
    let of = image.geometry
    do throws(FormatError) {
      geometry = try Geometry(
        version: of.version, clusterBits: of.clusterBits, refcountOrder: of.refcountOrder,
        virtualSize: place.diskSize, hasExtendedL2: of.hasExtendedL2, hasDataFile: of.hasDataFile)
    } catch { throw .format(path: image.path, error) }
    var tables = MetadataState(geometry: geometry, cacheBytes: Qcow2Image.layerCacheBytes)
    tables.l1 = try image.snapshotEntries(place.l1EntriesNeeded, at: place.l1TableOffset)
    tables.isL1Loaded = true
    state = Monitor(tables)
  }

  package var storage: any BlockStorage { image.storage }
  package var data: any BlockStorage { image.data }
  package var path: String { image.path }
  package var formatName: String { image.formatName }
  package var virtualSize: UInt64 { geometry.virtualSize }
  package var clusterSize: Int { geometry.clusterSize }
  package var allocationUnit: Int { geometry.subclusterSize }
  package var backingReference: BackingReference? { image.backingReference }
  package var isReadOnly: Bool { true }
  package var internalSnapshotCount: Int { 0 }

  package func mapping(
    at offset: GuestOffset, upTo limit: UInt64
  ) throws(ImageError) -> MappedExtent {
    precondition(
      limit > 0 && offset.rawValue < virtualSize && limit <= virtualSize - offset.rawValue,
      "a mapping outside of the disk was asked for")
    while true {
      switch state.withLock({ $0.mapping(at: offset.rawValue, upTo: limit) }) {
      case .found(let extent): return extent
      case .needsSlice(let slice, let place):
        let count = state.withLock { $0.cache.wordsPerSlice }
        let entries = try image.snapshotEntries(count, at: place)
        state.withLock { state in
          // Two threads may have read the same; nothing is ever dirty, so there is always room.
          if state.cache.slot(of: slice) == nil { _ = state.cache.insert(slice, entries) }
        }
      case .broken(let error): throw .format(path: path, error)
      case .needsTable, .busy: preconditionFailure("a snapshot's tables are only read")
      }
    }
  }

  package func read(
    _ mapping: Mapping, skip: Int, into buffer: inout MutableRawSpan
  ) throws(ImageError) {
    try image.read(mapping, skip: skip, into: &buffer)
  }
}
