internal import Chain
internal import Fuse

// The inode numbers of views, which say all there is to know:
//
//     bit 62     61..49        48..17        16..0
//       1      device's place  layer's name  1: the layer, 2...: its snapshots
//       1      device's place  of its size   0: the disk as it is now
//
// A layer's name is never used twice while its disk is open, so a number means the same bytes for the
// whole mount, and what the kernel has cached under it stays true. The disk as it is now has a number of
// its own, whichever layer is active: nothing cached from it can be taken for a layer that has become
// immutable. It has another one when it has grown: with writeback caching, the kernel keeps to the size that
// it was told first of a number. No table of numbers is kept, and nothing has to be forgotten.

/// A view as the kernel names it.
struct ViewInode: Equatable {
  /// Devices whose views can be numbered.
  static let deviceLimit = 1 << 13

  /// The place of the device among all.
  var device: Int
  /// Which of its views.
  var view: ViewID
  /// Of the disk as it is now: tells its size from others that it may have had. 0 of other views.
  private var mark: UInt32

  /// Names a view of a device that has a size now.
  init(device: Int, view: ViewID, deviceSize: UInt64) {
    self.device = device
    self.view = view
    // The upper half of a product that mixes all bits, so that sizes that somebody chose have different ones.
    mark = view == .now ? UInt32((deviceSize &* 0x9e37_79b9_7f4a_7c15) >> 32) : 0
  }

  /// Reads a number, nil if it is none of a view.
  init?(_ inode: InodeNumber) {
    let number = inode.rawValue
    guard number >> 62 == 1 else { return nil }
    device = Int(number >> 49 & 0x1fff)
    let layer = LayerID(rawValue: UInt32(truncatingIfNeeded: number >> 17))
    switch Int(number & 0x1ffff) {
    case 0: (view, mark) = (.now, layer.rawValue)
    case 1: (view, mark) = (.layer(layer), 0)
    case let place: (view, mark) = (.snapshot(layer, place - 2), 0)
    }
  }

  /// The number.
  var inode: InodeNumber {
    let layer: LayerID
    let part: Int
    switch view {
    case .now: (layer, part) = (LayerID(rawValue: mark), 0)
    case .layer(let id): (layer, part) = (id, 1)
    case .snapshot(let id, let place): (layer, part) = (id, place + 2)
    }
    precondition(device < Self.deviceLimit && part < 1 << 17, "a view without a number")
    return InodeNumber(
      1 << 62 | UInt64(device) << 49 | UInt64(layer.rawValue) << 17 | UInt64(part))
  }
}
