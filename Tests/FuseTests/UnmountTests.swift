import CFuse
import Foundation
import Glibc
import HostSystem
import Synchronization
import Testing

@testable import Fuse

@Suite("Unmounting", .serialized, .enabled(if: canMount), .timeLimit(.minutes(1)))
struct UnmountTests {
  private func isMounted(_ path: String) throws -> Bool { try MountTable.entry(at: path) != nil }

  @Test("umount(8) ends the session, and destroy is called once")
  func fromOutside() throws {
    let mounted = try Mounted()
    #expect(access(mounted.file(.bytes), F_OK) == 0)
    #expect(umount2(mounted.path, 0) == 0)
    try mounted.finish()
    #expect(mounted.tree.destroyed.withLock { $0 } == 1)
  }

  @Test("umount(8) is refused while a file is open, and the session goes on")
  func busy() throws {
    let mounted = try Mounted()
    do {
      let file = try Descriptor(mounted.file(.bytes), O_RDONLY)
      #expect(umount2(mounted.path, 0) == -1 && errno == EBUSY)
      #expect(try file.read(3).count == 3)
    }
    try mounted.unmount()
  }

  @Test("a request with nothing open takes the mount away")
  func requested() throws {
    let mounted = try Mounted()
    try mounted.unmount()
    #expect(try !isMounted(mounted.path))
    #expect(mounted.tree.destroyed.withLock { $0 } == 1)
    mounted.session.requestUnmount()
  }

  @Test("a request before anything was served is kept")
  func requestedEarly() throws {
    let path = try Mounted.makeDirectory()
    let tree = MemoryTree()
    let session = try FuseSession(
      mountpoint: MountPoint(checking: path), options: SessionOptions(source: "early", threads: 2),
      operations: tree)
    session.requestUnmount()
    try session.run()
    #expect(try !isMounted(path))
    #expect(tree.destroyed.withLock { $0 } == 1)
    rmdir(path)
  }

  @Test("a session that is never served takes its mount back")
  func neverServed() throws {
    let path = try Mounted.makeDirectory()
    do {
      _ = try FuseSession(
        mountpoint: MountPoint(checking: path), options: SessionOptions(source: "x", threads: 2),
        operations: MemoryTree())
    }
    #expect(try !isMounted(path))
    rmdir(path)
  }

  @Test("a request with an open file and a waiting reader ends at once; the files get errors")
  func requestedWhileOpen() throws {
    let mounted = try Mounted()
    let file = try Descriptor(mounted.file(.bytes), O_RDONLY)
    let reader = try Program(["/usr/bin/cat", mounted.file(.waiting)])
    mounted.tree.waiting.awaitReader()
    try mounted.unmount()
    #expect(reader.wait().exit == 1)
    #expect(try !isMounted(mounted.path))
    #expect(throws: SystemError.self) { try file.read(4096, at: 8192) }
    #expect(mounted.tree.bytes.releases.withLock { $0 } == 1)
  }

  @Test("pages that only the kernel has are written before the end")
  func dirtyPages() throws {
    let mounted = try Mounted { $0.writeback = .enabled }
    let file = try Descriptor(mounted.file(.bytes), O_RDWR)
    try file.write(Array("cached".utf8), at: 4096)
    try mounted.unmount()
    let bytes = mounted.tree.bytes.content.withLock { Array($0[4096..<4102]) }
    #expect(bytes == Array("cached".utf8))
  }

  @Test("a session ends when its mount was detached by others while a file is open")
  func detachedByOthers() throws {
    let mounted = try Mounted()
    let file = try Descriptor(mounted.file(.bytes), O_RDONLY)
    #expect(umount2(mounted.path, Int32(MNT_DETACH)) == 0)
    #expect(try file.read(3).count == 3)
    try mounted.unmount()
  }

  @Test("the kernel's abort ends the session, and the dead mount is gone")
  func aborted() throws {
    let mounted = try Mounted()
    var attributes = stat()
    #expect(stat(mounted.path, &attributes) == 0)
    let number = attributes.st_dev & 0xff
    let control = "/sys/fs/fuse/connections/\(number)/abort"
    // Not every container shows the control file system.
    guard access(control, W_OK) == 0 else { return try mounted.unmount() }
    try "1".write(toFile: control, atomically: false, encoding: .utf8)
    try mounted.finish()
    #expect(umount2(mounted.path, Int32(MNT_DETACH)) == 0)
    rmdir(mounted.path)
  }
}
