import BlockIO
import Chain
import HostSystem

extension Run {
  /// Streams all that is below a layer into it, as a job does.
  func streamInto(_ target: String, of disk: Disk) throws {
    let inner = try disk.openInner(try disk.findLayer(named: target))
    do {
      for part in StreamPart.allCases {
        let length = try inner.disk.streamLength(of: part)
        _ = try inner.disk.populate(part, GuestRange(offset: .zero, length: length), base: nil)
      }
      try inner.disk.rebase(to: nil)
      try inner.adopt()
    } catch {
      // The first failure is what is told.
      do { try inner.end() } catch {}
      throw error
    }
    try inner.end()
  }

  /// Whatever fails beside it, somebody who reads a layer keeps it from being written.
  func findInUse(_ target: String, of disk: Disk) throws {
    let reader = try HostFile.open(
      path(target), access: .readOnly, locking: .qemu, role: .backing)
    defer { reader.close() }
    do throws(ChainError) {
      try disk.openInner(try disk.findLayer(named: target)).end()
    } catch {
      if case .storage(.locked) = error { return }
      throw error
    }
    find("a layer is written to that somebody reads")
  }
}
