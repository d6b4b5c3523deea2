internal import Chain
internal import Control
internal import Fuse
internal import Glibc
internal import HostSystem

/// Answers the kernel's questions about the tree.
final class TreeOperations: Operations {
  let tree: InodeTree
  private let control: ControlPlane
  private let lines: MonitorLines
  let owner: FileOwner
  private let mounter: FileOwner
  let caching: CachingMode
  let mounted: FileTime

  /// How long attributes of a device are believed: space comes and goes with writes.
  private static let deviceValidity = Validity(seconds: 1)

  init(
    tree: InodeTree, control: ControlPlane, lines: MonitorLines, owner: FileOwner,
    mounter: FileOwner, caching: CachingMode, mounted: FileTime
  ) {
    self.tree = tree
    self.control = control
    self.lines = lines
    self.owner = owner
    self.mounter = mounter
    self.caching = caching
    self.mounted = mounted
  }

  func lookup(_ name: String, in directory: InodeNumber, reply: consuming EntryReply) {
    guard let node = tree.node(directory) else { return reply.fail(ENOENT) }
    if case .views(let views) = node.content { return lookUpView(name, in: views, reply: reply) }
    guard let index = tree.child(name, of: node) else { return reply.fail(ENOENT) }
    do {
      let (attributes, validity) = try attributes(tree.nodes[index], InodeTree.inode(index))
      reply.send(attributes, nameValidFor: .lasting, attributesValidFor: validity)
    } catch { reply.fail(error.kind.diskErrno) }
  }

  func forget(_ inode: InodeNumber, lookups: UInt64) {}

  func attributes(of inode: InodeNumber, reply: consuming AttributesReply) {
    guard let node = tree.node(inode) else { return viewAttributes(of: inode, reply: reply) }
    do {
      let (attributes, validity) = try attributes(node, inode)
      reply.send(attributes, validFor: validity)
    } catch { reply.fail(error.kind.diskErrno) }
  }

  private func attributes(
    _ node: Node, _ inode: InodeNumber
  ) throws(ChainError) -> (FileAttributes, Validity) {
    var attributes: FileAttributes
    var owner = owner
    var validity = Validity.lasting
    switch node.content {
    case .device(let device): return (try device.attributes(inode), Self.deviceValidity)
    case .directory(let children):
      attributes = FileAttributes(inode: inode, kind: .directory, permissions: 0o755)
      attributes.linkCount = 2 + UInt64(children.count { tree.nodes[$0].content.isDirectory })
    case .views:
      attributes = FileAttributes(inode: inode, kind: .directory, permissions: 0o755)
      attributes.linkCount = 2
    case .mountText, .deviceText, .wait:
      attributes = FileAttributes(inode: inode, kind: .regular, permissions: 0o400)
    case .events:
      attributes = FileAttributes(inode: inode, kind: .regular, permissions: 0o400)
      attributes.size = OpenEvents.sizeWithoutEvents + control.events.byteCount
      validity = .none
    case .link(let target):
      attributes = FileAttributes(inode: inode, kind: .symbolicLink, permissions: 0o777)
      attributes.size = UInt64(target.utf8.count)
    case .command, .mountCommand, .monitor:
      attributes = FileAttributes(inode: inode, kind: .regular, permissions: 0o600)
      // A command makes and opens files with the rights of whoever mounted: nobody else gives it.
      owner = mounter
    }
    attributes.permissions &= ~owner.modeMask
    attributes.userID = owner.userID
    attributes.groupID = owner.groupID
    attributes.accessed = mounted
    attributes.modified = mounted
    attributes.changed = mounted
    return (attributes, validity)
  }

  func change(
    _ change: AttributeChange, of inode: InodeNumber, reply: consuming AttributesReply
  ) {
    guard let node = tree.node(inode) else {
      return reply.fail(view(inode) == nil ? ENOENT : EROFS)
    }
    switch node.content {
    case .device(let device):
      let number = device.change(change)
      if number != 0 { return reply.fail(number) }
    case .command, .mountCommand, .mountText, .deviceText, .wait, .events, .monitor:
      // A truncation before a command is written means nothing; who may write is not up for change.
      if change.permissions != nil || change.userID != nil || change.groupID != nil {
        return reply.fail(EPERM)
      }
    case .directory, .views, .link: return reply.fail(EPERM)
    }
    attributes(of: inode, reply: reply)
  }

  func readLink(_ inode: InodeNumber, reply: consuming LinkReply) {
    guard case .link(let target) = tree.node(inode)?.content else { return reply.fail(EINVAL) }
    reply.send(target)
  }

  func open(_ inode: InodeNumber, flags: FileFlags, reply: consuming OpenReply) {
    guard let node = tree.node(inode) else { return openView(inode, flags: flags, reply: reply) }
    // Root passes the permission bits, and would hear of it from the first write, as EBADF.
    if node.content.isTextOnly, flags.allowsWriting { return reply.fail(EACCES) }
    let control = control
    do {
      switch node.content {
      case .directory, .views: reply.fail(EISDIR)
      case .link: reply.fail(ELOOP)
      case .device(let device):
        if device.disk.isReadOnly, flags.allowsWriting { return reply.fail(EROFS) }
        reply.send(HoldableFile(OpenDevice(device), device.hold), caching: caching)
      case .mountText(let file):
        let text = try OpenText { () throws(ControlError) in try control.text(of: file) }
        reply.send(text, caching: .direct)
      case .deviceText(let file, let device):
        let text = try OpenText { () throws(ControlError) in
          try control.text(of: file, device: device)
        }
        reply.send(text, caching: .direct)
      case .command(let verb, let device):
        let text =
          flags.allowsReading
          ? try OpenText { () throws(ControlError) in
            guard let file = DeviceFile(rawValue: verb.rawValue) else { return verb.usage + "\n" }
            return try control.text(of: file, device: device)
          } : nil
        let command = OpenCommand(text) { bytes throws(ControlError) in
          try control.execute(verb, device: device, bytes: bytes)
        }
        reply.send(command, caching: .direct)
      case .mountCommand(let verb):
        let text = flags.allowsReading ? try OpenText { control.text(of: verb) } : nil
        let command = OpenCommand(text) { bytes throws(ControlError) in
          try control.execute(verb, bytes: bytes)
        }
        reply.send(command, caching: .direct)
      case .wait(let device):
        reply.send(OpenWait(device: device, control: control), caching: .direct)
      case .events: reply.send(OpenEvents(control.events), caching: .direct)
      case .monitor: reply.send(OpenMonitor(lines), caching: .direct)
      }
    } catch { reply.fail(error.kind.commandErrno) }
  }

  func list(_ directory: InodeNumber, from position: UInt64, reply: consuming ListingReply) {
    guard let node = tree.node(directory) else { return reply.fail(ENOTDIR) }
    if case .views(let views) = node.content {
      let parent = InodeTree.inode(node.parent)
      return listViews(views, directory, parent: parent, from: position, reply: reply)
    }
    guard case .directory(let children) = node.content else { return reply.fail(ENOTDIR) }
    // Positions count entries: "." is before 1, ".." before 2.
    var entries: [(String, InodeNumber, FileKind)] = [
      (".", directory, .directory), ("..", InodeTree.inode(node.parent), .directory),
    ]
    for index in children {
      let child = tree.nodes[index]
      let kind: FileKind =
        switch child.content {
        case .directory, .views: .directory
        case .link: .symbolicLink
        case .device, .mountText, .mountCommand, .deviceText, .command, .wait, .events, .monitor:
          .regular
        }
      entries.append((child.name, InodeTree.inode(index), kind))
    }
    let first = Int(min(position, UInt64(entries.count)))
    reply.send { listing in
      for (index, entry) in entries.enumerated().dropFirst(first) {
        if !listing.add(entry.0, inode: entry.1, kind: entry.2, next: UInt64(index) + 1) { return }
      }
    }
  }

  func statistics(of inode: InodeNumber, reply: consuming StatisticsReply) {
    // The space that matters is where the active image is; for the tree itself, the first one's.
    var asked = devices.first
    if let node = tree.node(inode), case .device(let device) = node.content { asked = device }
    if let (directory, _) = view(inode) { asked = directory.device }
    guard let asked else { return reply.fail(ENOSYS) }
    let path: String
    do { path = try asked.disk.activePath } catch { return reply.fail(error.kind.diskErrno) }
    do {
      let host = try SystemCall.fileSystem(at: path)
      var statistics = FilesystemStatistics(
        blockSize: host.blockSize, blocks: host.blocks, freeBlocks: host.freeBlocks,
        availableBlocks: host.availableBlocks)
      statistics.files = host.files
      statistics.freeFiles = host.freeFiles
      statistics.nameLength = host.longestName
      reply.send(statistics)
    } catch { reply.fail(error.number) }
  }

  func checkAccess(_ mask: Int32, of inode: InodeNumber, reply: consuming StatusReply) {
    // The kernel judges by the permission bits.
    reply.succeed()
  }

  func unmounting() {
    for device in devices { device.hold.end() }
  }

  func destroy() {
    // Whoever lets requests go may still be at it.
    unmounting()
    // A line may go on although its file is closed, and acts on what is closed after this.
    lines.finish()
  }

  private var devices: [DeviceNode] {
    tree.nodes.compactMap { node in
      if case .device(let device) = node.content { device } else { nil }
    }
  }
}
