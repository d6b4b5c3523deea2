internal import BlockIO
internal import HostSystem

// The mount that shows the disks, as a place where none of their images may lie.
//
// An image in a file system on a device of this very mount would be written by writing to it, and while a
// snapshot of that device waits for its writers, it would wait for the snapshot. Even where it goes well,
// the mount could never be taken away: the file system is on it, and the file in use.

/// The files that this process serves, once it does.
package final class OwnMount: Sendable {
  private struct Place {
    var path: String
    var device: String?
  }

  private let place = Monitor<Place?>(nil)

  /// Nothing is mounted yet, and no file is refused.
  package init() {}

  /// From here on its files are known, by a path and by the number of its device where that is known.
  package func isMounted(at path: String, device: String?) {
    place.withLock { $0 = Place(path: path, device: device) }
  }

  /// Throws if a file is kept in one of this mount's; `directory` is asked for one that is not there yet.
  func check(_ path: String, besides directory: String? = nil) throws(StorageError) {
    guard let place = place.withLock({ $0 }) else { return }
    try checkName(path)
    let file = BlockDevices.file(under: directory ?? path) { path, device in
      guard let device else { return Self.isBy(path, place) }
      return BlockDevices.name(of: device) == place.device
    }
    if let file { throw .servedHere(path: path, file: file) }
  }

  /// Throws if a path leads into the mount by its text alone. The mount is not asked: the question might be
  /// one for the thread that asks it.
  func checkName(_ path: String) throws(StorageError) {
    guard let place = place.withLock({ $0 }), Self.isBy(path, place) else { return }
    throw .servedHere(path: path, file: path)
  }

  private static func isBy(_ path: String, _ place: Place) -> Bool {
    PlacePath.lies(PlacePath.normalized(path), in: place.path)
  }
}
