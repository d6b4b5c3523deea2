internal import Chain
internal import Fuse
internal import HostSystem

/// `.chain/vda`: the views of one device, and those that somebody has open.
///
/// A listing and a lookup show the chain as it is now. A view that is open is found by its number as
/// well, until it is closed: the kernel goes on asking for its attributes.
final class ViewDirectory: Sendable {
  let device: DeviceNode
  /// The place of the device among all.
  let number: Int
  private let opened = Monitor<[ViewID: Opened]>([:])

  private struct Opened {
    var view: DiskView
    var description: ViewDescription
    var count: Int
  }

  init(of device: DeviceNode, number: Int) {
    self.device = device
    self.number = number
  }

  /// The number of a view.
  func inode(of id: ViewID) -> InodeNumber {
    ViewInode(device: number, view: id, deviceSize: device.disk.virtualSize).inode
  }

  /// What a view is, nil if the chain does not have it and nobody has it open.
  func description(of id: ViewID) throws(ChainError) -> ViewDescription? {
    if let found = try device.disk.view(id) { return found }
    return opened.withLock { $0[id]?.description }
  }

  /// Opens a view once more, nil if there is none. All who have it open share one.
  func open(_ id: ViewID) throws(ChainError) -> DiskView? {
    if let view = share(id) { return view }
    // Not under the lock: it may read from the images.
    guard let description = try device.disk.view(id), let view = try device.disk.openView(id)
    else { return nil }
    // Somebody may have been faster.
    if let earlier = share(id) {
      view.close()
      return earlier
    }
    return opened.withLock { opened in
      if opened[id] == nil {
        opened[id] = Opened(view: view, description: description, count: 0)
      }
      opened[id]?.count += 1
      return opened[id]?.view
    }
  }

  private func share(_ id: ViewID) -> DiskView? {
    opened.withLock { opened in
      opened[id]?.count += 1
      return opened[id]?.view
    }
  }

  /// Takes back one `open`.
  func close(_ view: DiskView) {
    let isLast = opened.withLock { opened in
      guard let entry = opened[view.id] else { return false }
      opened[view.id]?.count -= 1
      if entry.count > 1 { return false }
      opened[view.id] = nil
      return true
    }
    // After the lock: it may close files.
    if isLast { view.close() }
  }

  /// The next views behind one, or from the first on; what keeps some from being listed is logged.
  func list(after last: ViewID?) throws(ChainError) -> [(id: ViewID, name: String)] {
    try device.disk.views(after: last, limit: 256) { _ = device.number(of: $0) }
  }
}
