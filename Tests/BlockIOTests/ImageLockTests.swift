import BlockIO
import Foundation
import HostSystem
import TestSupport
import Testing

@testable import BlockIO

@Suite(.timeLimit(.minutes(2))) struct ImageLockTests {
  let directory: TemporaryDirectory
  let path: String

  init() throws {
    directory = try TemporaryDirectory()
    path = directory.file("image")
    let file = try HostFile.create(path)
    try file.truncate(to: 1 << 20)
  }

  func open(_ access: HostFile.Access, _ role: StorageRole) throws -> HostFile {
    try HostFile.open(path, access: access, locking: .qemu, role: role)
  }

  @Test(
    "two users of one image go together only if neither writes",
    arguments: [
      (StorageRole.active, StorageRole.active, false), (.active, .backing, false),
      (.backing, .active, false), (.backing, .backing, true),
    ])
  func together(first: StorageRole, second: StorageRole, works: Bool) throws {
    let holder = try open(.readWrite, first)
    if works {
      _ = try open(.readWrite, second)
    } else {
      let error = try #require(throws: StorageError.self) { _ = try open(.readWrite, second) }
      #expect(error.kind == .busy)
      #expect(error.description.contains("pid \(getpid())"))
    }
    holder.close()
    _ = try open(.readWrite, second)
  }

  @Test("a file that refuses writes keeps its locks, and refuses them as a backing file too")
  func stopped() throws {
    let holder = try open(.readWrite, .active)
    holder.refuseWrites()
    let bytes: [UInt8] = [1]
    for isBacking in [false, true] {
      if isBacking { holder.becomeBacking() }
      #expect(holder.isReadOnly)
      #expect(throws: StorageError.readOnly(path: path)) {
        try holder.write(bytes.span.bytes, at: .zero)
      }
      #expect(throws: StorageError.self) { try open(.readWrite, .active) }
    }
    holder.close()
    _ = try open(.readWrite, .active)
  }

  @Test("a refused user leaves no lock behind")
  func refusedLeavesNothing() throws {
    let holder = try open(.readWrite, .active)
    #expect(throws: StorageError.self) { try open(.readWrite, .active) }
    holder.close()
    _ = try open(.readWrite, .active)
  }

  @Test("a snapshot's base lets readers in, and keeps writers off")
  func roles() throws {
    let top = try open(.readWrite, .active)
    #expect(throws: StorageError.self) { try open(.readOnly, .backing) }
    top.becomeBacking()
    #expect(top.isReadOnly)
    let reader = try open(.readOnly, .backing)
    #expect(throws: StorageError.self) { try open(.readWrite, .active) }
    reader.close()
    #expect(throws: StorageError.self) { try open(.readWrite, .active) }
    top.close()
    _ = try open(.readWrite, .active)
  }

  @Test("an active file becomes a backing file whoever tries its locks at that moment")
  func nobodyInTheWay() throws {
    let top = try open(.readWrite, .active)
    // As another program's, which locks first and looks then.
    let other = try HostFile.open(path, access: .readWrite, locking: .none, role: .active)
    for byte in ImageLock.active.bytes { try SystemCall.shareByte(other.descriptor.raw, byte) }
    top.becomeBacking()
    for byte in ImageLock.active.bytes { try SystemCall.unlockByte(other.descriptor.raw, byte) }
    _ = try open(.readOnly, .backing)
    #expect(throws: StorageError.self) { try open(.readWrite, .active) }
  }

  @Test("without locking nobody is asked")
  func unlocked() throws {
    let holder = try open(.readWrite, .active)
    _ = try HostFile.open(path, access: .readWrite, locking: .none, role: .active)
    holder.close()
  }

  // QEMU keeps writers off a qcow2 image that it reads; of a raw one it would not mind.
  func makeQcow2() throws {
    try runSuccessfully("qemu-img", "create", "-q", "-f", "qcow2", path, "1M")
  }

  @Test(
    "an image that we hold is closed to qemu-io's writes, and a backing file open to its reads",
    .enabled(if: ToolAvailability.has(["qemu-io", "qemu-img"])))
  func ourLockStopsQEMU() throws {
    try makeQcow2()
    func qemu(_ arguments: String...) throws -> CommandResult {
      try run(["qemu-io", "-f", "qcow2"] + arguments + [path])
    }
    let top = try open(.readWrite, .active)
    let refused = try qemu("-c", "write 0 512")
    #expect(refused.status != 0)
    #expect(refused.errorOutput.contains("lock"))
    #expect(try qemu("-r", "-c", "read 0 512").status != 0)
    top.becomeBacking()
    #expect(try qemu("-r", "-c", "read 0 512").status == 0)
    #expect(try qemu("-c", "write 0 512").status != 0)
    top.close()
    #expect(try qemu("-c", "write 0 512").status == 0)
  }

  @Test(
    "qemu-img neither reads nor resizes an image that we write to",
    .enabled(if: ToolAvailability.has("qemu-img")))
  func ourLockStopsQemuImg() throws {
    try makeQcow2()
    let top = try open(.readWrite, .active)
    #expect(try run("qemu-img", "resize", path, "2M").status != 0)
    #expect(try run("qemu-img", "info", path).status != 0)
    #expect(try run("qemu-img", "info", "-U", path).status == 0)
    top.close()
    #expect(try run("qemu-img", "resize", path, "2M").status == 0)
  }

  @Test(
    "an image that qemu-io holds is refused to us, and the error names qemu-io and its process",
    .enabled(if: ToolAvailability.has(["qemu-io", "qemu-img"])), arguments: [false, true])
  func qemuLockStopsUs(isReader: Bool) throws {
    try makeQcow2()
    let words = ["qemu-io", "-f", "qcow2"] + (isReader ? ["-r"] : [])
    let holder = try RunningCommand(words + ["-c", "sleep 100000", path])
    let onlooker = try HostFile.open(path, access: .readOnly, locking: .none, role: .backing)
    let limit = Date().addingTimeInterval(30)
    while LockHolder.find(byte: 203, descriptor: onlooker.descriptor.raw) == nil, Date() < limit {
      usleep(2000)
    }
    let error = try #require(throws: StorageError.self) { _ = try open(.readWrite, .active) }
    #expect(error.kind == .busy)
    #expect(error.description.contains("qemu-io (pid \(holder.process))"))
    if isReader {
      _ = try open(.readOnly, .backing)
    } else {
      #expect(throws: StorageError.self) { try open(.readOnly, .backing) }
    }
    _ = holder.end()
    _ = try open(.readWrite, .active)
  }

  @Test(
    "a line of fdinfo covers the bytes from its first to its last",
    arguments: [
      ("lock:\t1: OFDLCK  ADVISORY  READ -1 fe:00:12 100 101", true),
      ("lock:\t1: OFDLCK  ADVISORY  READ -1 fe:00:12 101 EOF", true),
      ("lock:\t1: OFDLCK  ADVISORY  READ -1 fe:00:12 102 203", false),
      ("lock:\t1: OFDLCK  ADVISORY  READ -1 fe:00:12 0 100", false),
      ("pos:\t100 102", false), ("lock:", false),
    ])
  func fdinfo(line: String, covers: Bool) {
    #expect(LockHolder.covers(line[...], byte: 101) == covers)
  }
}
