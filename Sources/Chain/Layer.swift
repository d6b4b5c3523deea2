internal import BlockIO
internal import HostSystem
internal import ImageDriver
internal import Synchronization

/// What can be said of one layer of a disk at one moment.
package struct LayerDescription: Sendable, Equatable {
  /// The place in the chain, 0 for the active image.
  package var index: Int
  /// The layer's name for as long as the disk is open.
  package var id: LayerID
  /// The path it was opened by.
  package var path: String
  /// `qcow2` or `raw`.
  package var format: String
  /// The size of the disk that it describes.
  package var virtualSize: UInt64
  /// What its file takes on the host.
  package var allocatedBytes: UInt64
  /// What its own header names as backing file, if anything.
  package var backingString: String?
  /// Its bytes are encrypted.
  package var isEncrypted: Bool
  /// The end of the last byte that was written to the file with the guest's bytes since it was opened.
  package var highestWritten: UInt64

  /// A description with all its parts.
  package init(
    index: Int, id: LayerID, path: String, format: String, virtualSize: UInt64,
    allocatedBytes: UInt64, backingString: String?, isEncrypted: Bool = false,
    highestWritten: UInt64 = 0
  ) {
    self.index = index
    self.id = id
    self.path = path
    self.format = format
    self.virtualSize = virtualSize
    self.allocatedBytes = allocatedBytes
    self.backingString = backingString
    self.isEncrypted = isEncrypted
    self.highestWritten = highestWritten
  }

  /// The last component of the path.
  package var fileName: String { PlacePath.fileName(of: path) }
}

/// One open image in its place in a chain.
///
/// The image object stays the same when a snapshot turns it from the active image into a backing
/// layer, so extents that name the layer stay true.
final class Layer: Sendable {
  let id: LayerID
  let image: any Image
  /// The path it was opened by.
  let path: String
  /// By which string the overlay names it; nil for the image that was mounted.
  let namedAs: String?
  /// Whether the host lets the active image share blocks with the layer's.
  let sharing = Sharing()
  /// Who needs the files: the same for all objects that stand for the layer one after the other.
  let use: LayerUse

  init(id: LayerID, image: any Image, path: String, namedAs: String?, use: LayerUse? = nil) {
    self.id = id
    self.image = image
    self.path = path
    self.namedAs = namedAs
    self.use = use ?? LayerUse(image)
  }

  /// The last component of the path.
  var fileName: String { PlacePath.fileName(of: path) }

  /// What the layer's files take on the host.
  func allocatedBytes() throws(ChainError) -> UInt64 {
    do {
      return try image.allocatedBytes()
    } catch {
      throw .storage(error)
    }
  }
}

/// What is known of a host's will to let two files share blocks.
///
/// Relaxed: it only spares calls that would be refused.
final class Sharing: Sendable {
  private let answer = Atomic<Answer>(.unknown)

  private enum Answer: UInt8, AtomicRepresentable {
    case unknown
    case given
    case refused
  }

  /// Asking may be worth it.
  var isPossible: Bool { answer.load(ordering: .relaxed) != .refused }

  /// Notes what the host said. What it has done once it can do, so a later refusal is about one range.
  func note(isShared: Bool) {
    if isShared {
      answer.store(.given, ordering: .relaxed)
    } else {
      _ = answer.compareExchange(expected: .unknown, desired: .refused, ordering: .relaxed)
    }
  }
}

extension Layer {
  func mapping(at offset: GuestOffset, upTo limit: UInt64) throws(ChainError) -> MappedExtent {
    try onImage { () throws(ImageError) in try image.mapping(at: offset, upTo: limit) }
  }
}

/// A layer as the object knows it that stands for it now: an older one may know less of its tables.
struct NewestTables: MappingSource {
  let id: LayerID
  let image: any Image

  init(of layer: Layer) {
    id = layer.id
    image = layer.use.image
  }

  var end: GuestOffset { GuestOffset(rawValue: image.virtualSize) }

  func mapping(at offset: GuestOffset, upTo limit: UInt64) throws(ChainError) -> MappedExtent {
    try onImage { () throws(ImageError) in try image.mapping(at: offset, upTo: limit) }
  }
}

/// The layers below the active image, topmost first, as they are between two changes of the chain.
final class BackingLayers: Sendable {
  let layers: [Layer]
  /// The layers' names beside each other: a search touches no layer but the one it finds.
  private let ids: [LayerID]
  /// Another number after each snapshot and rebase.
  let version: UInt64
  /// Where the topmost layer ends: from there on they read zero, and it says so.
  let topEnd: GuestOffset
  /// Where the longest layer ends: from there on no layer has anything.
  let end: GuestOffset

  // What each layer and all below it take; it does not change while they are backing layers, but for one
  // that is streamed into, whose growth is told when that is over.
  private let allocatedFrom: [UInt64]

  init(layers: [Layer], version: UInt64) throws(ChainError) {
    self.layers = layers
    ids = layers.map(\.id)
    self.version = version
    topEnd = GuestOffset(rawValue: layers.first?.image.virtualSize ?? 0)
    end = GuestOffset(rawValue: layers.map(\.image.virtualSize).max() ?? 0)
    var sums: [UInt64] = []
    var sum: UInt64 = 0
    for layer in layers.reversed() {
      sum += try layer.allocatedBytes()
      sums.append(sum)
    }
    allocatedFrom = sums.reversed()
    precondition(zip(ids, ids.dropFirst()).allSatisfy { $0 > $1 })
  }

  /// What the layers' files take on the host.
  var allocatedBytes: UInt64 { allocatedBytes(from: 0) }

  /// What the files of the layer at an index and of those below it take; 0 below the last.
  func allocatedBytes(from index: Int) -> UInt64 {
    index < allocatedFrom.count ? allocatedFrom[index] : 0
  }

  /// The layer with this name, or nil if it left the chain.
  func layer(_ id: LayerID) -> Layer? {
    let index = index(notAbove: id)
    return index < ids.count && ids[index] == id ? layers[index] : nil
  }

  /// The index of the first layer that is this one or lies below it.
  func index(notAbove id: LayerID) -> Int {
    // Names fall from top to bottom; ten steps find one of a thousand.
    var low = 0
    var high = ids.count
    while low < high {
      let middle = (low + high) / 2
      if ids[middle] > id { low = middle + 1 } else { high = middle }
    }
    return low
  }
}

/// All layers of a disk between two changes of the chain.
final class DiskLayers: Sendable {
  let active: Layer
  /// The active image as one that can be written, nil on a read-only disk.
  let writable: (any WritableImage)?
  let backing: BackingLayers

  init(active: Layer, writable: (any WritableImage)?, backing: BackingLayers) {
    self.active = active
    self.writable = writable
    self.backing = backing
  }

  /// The unit in which the active image takes bytes: its cluster, or a part of that.
  var unit: UInt64 { UInt64(active.image.allocationUnit) }

  /// Active image first.
  var all: [Layer] { [active] + backing.layers }

  /// The layer at an index, 0 for the active image; nil if the chain has none there.
  func layer(at index: Int) -> Layer? {
    if index == 0 { return active }
    return index > 0 && index <= backing.layers.count ? backing.layers[index - 1] : nil
  }

  /// The index of a layer, nil if it left the chain.
  func index(of id: LayerID) -> Int? {
    if id == active.id { return 0 }
    let index = backing.index(notAbove: id)
    return index < backing.layers.count && backing.layers[index].id == id ? index + 1 : nil
  }
}
