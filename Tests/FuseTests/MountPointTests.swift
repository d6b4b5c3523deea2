import CFuse
import Foundation
import Glibc
import HostSystem
import Testing

@testable import Fuse

@Suite("MountPoint", .serialized, .timeLimit(.minutes(1)))
struct MountPointTests {
  @Test("an empty directory will do, by its path without links")
  func empty() throws {
    let path = try Mounted.makeDirectory()
    defer { rmdir(path) }
    #expect(
      try MountPoint(checking: path + "/../" + (path as NSString).lastPathComponent).path == path)
  }

  @Test("a missing path, a file and a filled directory are told apart")
  func refusals() throws {
    let path = try Mounted.makeDirectory()
    defer { rmdir(path) }
    #expect(throws: MountPointError.missing(path: path + "/no")) {
      try MountPoint(checking: path + "/no")
    }
    let file = path + "/file"
    close(open(file, O_CREAT | O_WRONLY, 0o600))
    defer { unlink(file) }
    #expect(throws: MountPointError.notADirectory(path: file)) { try MountPoint(checking: file) }
    #expect(throws: MountPointError.notEmpty(path: path)) { try MountPoint(checking: path) }
  }

  @Test("a mounted file system is told from a dead one", .enabled(if: canMount))
  func mounted() throws {
    let mounted = try Mounted()
    #expect(
      throws: MountPointError.alreadyMounted(path: mounted.path, source: "memory, \\ and more")
    ) { try MountPoint(checking: mounted.path) }
    // Nobody serves the connection any more, but the mount stays: as after kill -9.
    let copy = try Mounted.makeDirectory()
    #expect(mount(mounted.path, copy, nil, UInt(MS_BIND), nil) == 0)
    let file = try Descriptor(mounted.file(.bytes), O_RDONLY)
    try mounted.unmount()
    _ = file.raw
    let error = #expect(throws: MountPointError.self) { try MountPoint(checking: copy) }
    #expect(error == .dead(path: copy))
    #expect(error?.description.contains("fusermount3 -uz \(copy)") == true)
    umount2(copy, Int32(MNT_DETACH))
    rmdir(copy)
  }

  @Test(
    "a line of mountinfo gives its fields",
    arguments: [
      (
        "36 35 0:53 / /mnt/a\\040b rw,noatime - fuse.chainfs vda=/i\\134x rw", "/mnt/a b",
        "vda=/i\\x"
      ),
      ("36 35 0:53 / /m rw shared:1 master:2 - fuse.chainfs s rw", "/m", "s"),
    ])
  func line(text: String, path: String, source: String) {
    let entry = MountTableEntry(Substring(text))
    #expect(entry?.device == "0:53")
    #expect(entry?.path == path)
    #expect(entry?.type == "fuse.chainfs")
    #expect(entry?.source == source)
  }

  @Test(
    "a short line of mountinfo is none", arguments: ["", "1 2 3", "36 35 0:53 / /m rw fuse s rw"])
  func shortLine(text: String) {
    #expect(MountTableEntry(Substring(text)) == nil)
  }
}
