import CFuse
import Foundation
import Glibc
import HostSystem
import Synchronization
import Testing

@testable import Fuse

@Suite("FuseSession", .serialized, .enabled(if: canMount), .timeLimit(.minutes(1)))
struct SessionTests {
  @Test("what is written is read back, also through the cache and across a large read")
  func readAndWrite() throws {
    let mounted = try Mounted()
    do {
      let file = try Descriptor(mounted.file(.bytes), O_RDWR)
      try file.write(Array("hello".utf8), at: 1_048_570)
      #expect(try file.read(5, at: 1_048_570) == Array("hello".utf8))
      #expect(try file.read(2 << 20).count == ByteFile.size)
      #expect(try file.read(10, at: ByteFile.size).isEmpty)
    }
    try mounted.unmount()
    #expect(
      mounted.tree.bytes.content.withLock { $0[1_048_570..<1_048_575] } == Array("hello".utf8)[...])
  }

  @Test("a write past the end fails with the file's errno")
  func writePastEnd() throws {
    let mounted = try Mounted()
    do {
      let file = try Descriptor(mounted.file(.bytes), O_RDWR)
      let error = #expect(throws: SystemError.self) { try file.write([1], at: ByteFile.size) }
      #expect(error?.number == ENOSPC)
    }
    try mounted.unmount()
  }

  @Test("O_TRUNC comes as a size of 0 through no file, and ftruncate through its file")
  func truncation() throws {
    let mounted = try Mounted()
    do {
      let file = try Descriptor(mounted.file(.bytes), O_RDWR | O_TRUNC)
      #expect(mounted.tree.changes.withLock { $0.map(\.size) } == [0])
      #expect(mounted.tree.changes.withLock { $0.last?.isThroughFile } == false)
      #expect(ftruncate(file.raw, 5) == -1 && errno == EPERM)
      #expect(mounted.tree.changes.withLock { $0.last?.size } == 5)
      #expect(mounted.tree.changes.withLock { $0.last?.isThroughFile } == true)
    }
    try mounted.unmount()
  }

  @Test("chmod and utimens say what is to change and nothing else")
  func attributeChanges() throws {
    let mounted = try Mounted()
    #expect(chmod(mounted.file(.bytes), 0o600) == 0)
    var times = [timespec(tv_sec: 9, tv_nsec: 8), timespec(tv_sec: 0, tv_nsec: 0x3fff_ffff)]
    #expect(utimensat(AT_FDCWD, mounted.file(.bytes), &times, 0) == 0)
    var first = AttributeChange()
    first.permissions = 0o600
    var second = AttributeChange()
    second.accessed = .at(FileTime(seconds: 9, nanoseconds: 8))
    second.modified = .now
    var changes = mounted.tree.changes.withLock { $0 }
    for index in changes.indices { changes[index].changed = nil }
    #expect(changes == [first, second])
    try mounted.unmount()
  }

  @Test("stat, readdir, readlink and statfs tell what the tree says")
  func metadata() throws {
    let mounted = try Mounted()
    var attributes = stat()
    #expect(stat(mounted.file(.bytes), &attributes) == 0)
    #expect(attributes.st_size == ByteFile.size)
    #expect(attributes.st_blocks == 7)
    #expect(attributes.st_blksize == 65536)
    #expect(attributes.st_mode == S_IFREG | 0o640)
    #expect(attributes.st_mtim.tv_sec == 1_000_000 && attributes.st_mtim.tv_nsec == 5)
    let names = try FileManager.default.contentsOfDirectory(atPath: mounted.path)
    #expect(Set(names) == Set(MemoryTree.Name.allCases.map(\.rawValue)))
    let link = try FileManager.default.destinationOfSymbolicLink(atPath: mounted.file(.link))
    #expect(link == "bytes")
    var statistics = statvfs()
    #expect(statvfs(mounted.path, &statistics) == 0)
    #expect(statistics.f_blocks == 100 && statistics.f_bavail == 30)
    let mounts = try String(contentsOfFile: "/proc/self/mounts", encoding: .utf8)
    #expect(mounts.contains("memory,\\040\\134\\040and\\040more \(mounted.path) fuse.chainfs"))
    try mounted.unmount()
  }

  @Test("what the tree cannot do is refused with the errno of the man page")
  func refusals() throws {
    let mounted = try Mounted()
    let path = mounted.path
    #expect(open(path + "/new", O_CREAT | O_WRONLY, 0o600) == -1 && errno == EPERM)
    #expect(mkdir(path + "/new", 0o700) == -1 && errno == EPERM)
    #expect(unlink(path + "/bytes") == -1 && errno == EPERM)
    #expect(rename(path + "/bytes", path + "/other") == -1 && errno == EPERM)
    #expect(symlink("a", path + "/new") == -1 && errno == EPERM)
    #expect(access(path + "/absent", F_OK) == -1 && errno == ENOENT)
    #expect(open(path + "/failing", O_RDONLY) == -1 && errno == EROFS)
    do {
      let file = try Descriptor(path + "/bytes", O_RDWR)
      #expect(isatty(file.raw) == 0 && errno == ENOTTY)
    }
    try mounted.unmount()
  }

  @Test("fallocate, lseek, fsync and O_DSYNC arrive as what they mean")
  func ranges() throws {
    let mounted = try Mounted()
    do {
      let file = try Descriptor(mounted.file(.bytes), O_RDWR | O_DSYNC)
      for mode in ["-z", "-p", "-n"] {
        let tool = try Program([
          "/usr/bin/fallocate", mode, "-o", "0", "-l", "4096", mounted.file(.bytes),
        ])
        #expect(tool.wait().exit == 0)
      }
      #expect(
        mounted.tree.bytes.allocations.withLock { $0 } == [
          .zeroRange(keepsSize: false), .punchHole, .preallocate(keepsSize: true),
        ])
      #expect(lseek(file.raw, 5, 3) == 105)
      #expect(lseek(file.raw, 5, 4) == -1 && errno == ENXIO)
      try file.write([1], at: 0)
      #expect(mounted.tree.bytes.durableWrites.withLock { $0 } >= 1)
      #expect(fsync(file.raw) == 0 && fdatasync(file.raw) == 0)
      let syncs = mounted.tree.bytes.syncs.withLock { Array($0.suffix(2)) }
      #expect(syncs == [.everything, .data])
    }
    try mounted.unmount()
  }

  @Test("a reply that is dropped is an input/output error")
  func droppedReply() throws {
    let mounted = try Mounted()
    do {
      let file = try Descriptor(mounted.file(.dropped), O_RDONLY)
      let error = #expect(throws: SystemError.self) { try file.read(10) }
      #expect(error?.number == EIO)
      // A file that does not implement an operation says so.
      #expect(pwrite(file.raw, "x", 1, 0) == -1 && errno == EBADF)
    }
    try mounted.unmount()
  }

  @Test("the last close releases a file once")
  func release() throws {
    let mounted = try Mounted()
    for _ in 0..<2 {
      let file = try Descriptor(mounted.file(.bytes), O_RDONLY)
      _ = try file.read(1)
    }
    mounted.tree.bytes.releases.wait(while: { $0 < 2 })
    #expect(mounted.session.openFileCount == 0)
    try mounted.unmount()
    #expect(mounted.tree.bytes.releases.withLock { $0 } == 2)
  }

  @Test("every file and the root tell which process serves them")
  func process() throws {
    let mounted = try Mounted()
    for path in [mounted.path, mounted.file(.bytes)] {
      let program = """
        import fcntl, os, struct
        f = os.open("\(path)", os.O_RDONLY)
        print(struct.unpack("i", fcntl.ioctl(f, \(FuseSession.processQuestion), bytes(4)))[0])
        """
      let python = try Program(["/usr/bin/env", "python3", "-c", program])
      #expect(python.wait().text == "\(getpid())\n")
    }
    try mounted.unmount()
  }
}
