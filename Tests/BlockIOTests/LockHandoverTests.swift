import BlockIO
import Foundation
import HostSystem
import TestSupport
import Testing

@testable import BlockIO

/// A backing file that is opened once more, for writing.
@Suite("Locks that change hands", .timeLimit(.minutes(2))) struct LockHandoverTests {
  let directory: TemporaryDirectory
  let path: String

  init() throws {
    directory = try TemporaryDirectory()
    path = directory.file("image")
    let file = try HostFile.create(path)
    try file.truncate(to: 1 << 20)
    file.close()
  }

  private func open(
    _ access: HostFile.Access, _ role: StorageRole, _ locking: HostFile.Locking = .qemu
  ) throws -> HostFile {
    try HostFile.open(path, access: access, locking: locking, role: role)
  }

  /// The bytes of all permissions that an open file does not hold itself, and somebody does.
  private func heldBytes(besides file: HostFile) throws -> [Int64] {
    try ImagePermission.allCases.flatMap { [$0.useByte, $0.refuseByte] }.filter { byte in
      try SystemCall.isByteHeldElsewhere(file.descriptor.raw, byte)
    }.sorted()
  }

  @Test("the writer has the locks of a writer, and gives all but a backing file's back")
  func works() throws {
    let layer = try open(.readOnly, .backing)
    let stranger = try open(.readWrite, .active, .none)
    let writer = try layer.writer()
    #expect(try heldBytes(besides: stranger) == [100, 101, 102, 103, 201, 203])
    #expect(try heldBytes(besides: writer) == [], "the layer has none any more")
    #expect(throws: StorageError.self) { try open(.readOnly, .backing) }
    let bytes: [UInt8] = [7]
    try writer.write(bytes.span.bytes, at: HostOffset(5))
    var found: [UInt8] = [0]
    var span = found.mutableSpan
    var room = span.mutableBytes
    #expect(try layer.read(into: &room, at: HostOffset(5)) == 1)
    #expect(found == [7] && layer.isReadOnly)
    writer.becomeBacking()
    let reader = try open(.readOnly, .backing)
    #expect(throws: StorageError.self) { try open(.readWrite, .active) }
    reader.close()
    // The older open file has nothing left to give back.
    layer.close()
    #expect(throws: StorageError.self) { try open(.readWrite, .active) }
    writer.close()
    try open(.readWrite, .active).close()
  }

  @Test("somebody else who reads the file refuses a writer, and all is as before")
  func refused() throws {
    let layer = try open(.readOnly, .backing)
    let other = try open(.readOnly, .backing)
    let error = #expect(throws: StorageError.self) { try layer.writer() }
    #expect(error?.kind == .busy && error?.description.contains("pid \(getpid())") == true)
    #expect(try heldBytes(besides: other) == [100, 201, 203])
    other.close()
    #expect(throws: StorageError.self) { try open(.readWrite, .active) }
    try layer.writer().close()
  }

  @Test("a writer that was not put to use leaves the file as it was")
  func takenBack() throws {
    let layer = try open(.readOnly, .backing)
    layer.takeBack(from: try layer.writer())
    let other = try open(.readOnly, .backing)
    #expect(try heldBytes(besides: other) == [100, 201, 203])
    other.close()
    layer.close()
    try open(.readWrite, .active).close()
  }

  @Test("a file that was opened without locks gets none")
  func unlocked() throws {
    let layer = try open(.readOnly, .backing, .none)
    let writer = try layer.writer()
    #expect(!writer.isReadOnly)
    try open(.readWrite, .active).close()
  }
}
