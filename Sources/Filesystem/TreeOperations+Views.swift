internal import Chain
internal import Fuse
internal import Glibc

// The part of the tree that changes: `.chain/vda`. What is listed there is asked for each time, and
// the kernel believes no name for longer than the question takes. A number means the same bytes for
// the whole mount (see ViewInode), so pages may stay, but for those of the disk as it is now.

extension TreeOperations {
  /// The directory and the view that a number means, nil if it is none of a view.
  func view(_ inode: InodeNumber) -> (directory: ViewDirectory, id: ViewID)? {
    guard let named = ViewInode(inode), tree.views.indices.contains(named.device) else {
      return nil
    }
    return (tree.views[named.device], named.view)
  }

  func lookUpView(_ name: String, in directory: ViewDirectory, reply: consuming EntryReply) {
    do {
      guard let found = try directory.device.disk.view(named: name) else {
        return reply.fail(ENOENT)
      }
      let inode = directory.inode(of: found.id)
      let (attributes, validity) = try attributes(of: found, in: directory, inode)
      reply.send(attributes, nameValidFor: .none, attributesValidFor: validity)
    } catch { reply.fail(directory.device.number(of: error)) }
  }

  func viewAttributes(of inode: InodeNumber, reply: consuming AttributesReply) {
    guard let (directory, id) = view(inode) else { return reply.fail(ENOENT) }
    do {
      // Not ENOENT: the kernel looks the name up once more, which may be another layer's by now.
      guard let found = try directory.description(of: id) else { return reply.fail(ESTALE) }
      let (attributes, validity) = try attributes(of: found, in: directory, inode)
      reply.send(attributes, validFor: validity)
    } catch { reply.fail(directory.device.number(of: error)) }
  }

  private func attributes(
    of view: ViewDescription, in directory: ViewDirectory, _ inode: InodeNumber
  ) throws(ChainError) -> (FileAttributes, Validity) {
    var attributes: FileAttributes
    var validity = Validity(seconds: 1)
    if view.id == .now {
      attributes = try directory.device.attributes(inode)
      // The device may grow.
      validity = .none
    } else {
      attributes = FileAttributes(inode: inode, kind: .regular, permissions: 0)
      attributes.size = view.size
      attributes.allocatedSectors = view.allocatedBytes / 512
      attributes.preferredSize = UInt32(clamping: view.clusterSize)
      attributes.accessed = mounted
      attributes.modified = mounted
      attributes.changed = mounted
    }
    attributes.permissions = 0o400 & ~owner.modeMask
    attributes.userID = owner.userID
    attributes.groupID = owner.groupID
    return (attributes, validity)
  }

  func openView(_ inode: InodeNumber, flags: FileFlags, reply: consuming OpenReply) {
    guard let (directory, id) = view(inode) else { return reply.fail(ENOENT) }
    if flags.allowsWriting { return reply.fail(EROFS) }
    do {
      guard let view = try directory.open(id) else { return reply.fail(ESTALE) }
      reply.send(OpenView(view, of: directory), caching: id == .now ? .direct : caching)
    } catch { reply.fail(directory.device.number(of: error)) }
  }

  func listViews(
    _ directory: ViewDirectory, _ inode: InodeNumber, parent: InodeNumber, from position: UInt64,
    reply: consuming ListingReply
  ) {
    // Positions: "." is before 1, ".." before 2; behind a view it is the view's own number.
    let last = ViewInode(InodeNumber(position))?.view
    let views: [(id: ViewID, name: String)]
    do { views = try directory.list(after: last) } catch {
      return reply.fail(directory.device.number(of: error))
    }
    reply.send { listing in
      if position < 1, !listing.add(".", inode: inode, kind: .directory, next: 1) { return }
      if position < 2, !listing.add("..", inode: parent, kind: .directory, next: 2) { return }
      for view in views {
        let number = directory.inode(of: view.id)
        if !listing.add(view.name, inode: number, kind: .regular, next: number.rawValue) { return }
      }
    }
  }
}
