import Foundation
import Glibc
import HostSystem
import Synchronization
import Testing

@testable import Fuse

/// A real mount of a `MemoryTree` in a temporary directory, served by a thread.
final class Mounted {
  let tree: MemoryTree
  let path: String
  let session: FuseSession
  let outcome = Monitor<Result<Void, FuseError>?>(nil)
  private let worker: Worker

  init(
    tree: MemoryTree = MemoryTree(), adjust: (inout SessionOptions) -> Void = { _ in }
  ) throws {
    self.tree = tree
    path = try Self.makeDirectory()
    var options = SessionOptions(source: "memory, \\ and more", threads: 4)
    adjust(&options)
    let session = try FuseSession(
      mountpoint: MountPoint(checking: path), options: options, operations: tree)
    self.session = session
    worker = try Worker(name: "session") { [outcome] in
      do throws(FuseError) {
        try session.run()
        outcome.change { $0 = .success(()) }
      } catch {
        outcome.change { $0 = .failure(error) }
      }
    }
  }

  static func makeDirectory() throws -> String {
    var template = Array("/tmp/chainfs-fuse-XXXXXX".utf8CString)
    let made = template.withUnsafeMutableBufferPointer { mkdtemp($0.baseAddress!) }
    return String(cString: try #require(made))
  }

  func file(_ name: MemoryTree.Name) -> String { path + "/" + name.rawValue }

  /// Waits until the session has ended, and clears up.
  func finish() throws {
    let clock = SystemTimeSource()
    let ended = outcome.wait(
      until: clock.now().advanced(byMilliseconds: 20_000), while: { $0 == nil })
    if !ended {
      umount2(path, Int32(MNT_DETACH))
      Issue.record("the session did not end")
      return
    }
    worker.join()
    rmdir(path)
    try outcome.withLock { $0 }?.get()
  }

  /// Asks for the end and waits for it.
  func unmount() throws {
    session.requestUnmount()
    try finish()
  }
}

/// A descriptor for the tests, with errno where something fails.
struct Descriptor: ~Copyable {
  let raw: Int32

  init(_ path: String, _ flags: Int32) throws(SystemError) {
    raw = open(path, flags)
    if raw < 0 { throw SystemError(call: "open", number: errno) }
  }

  deinit { close(raw) }

  func read(_ count: Int, at offset: Int = 0) throws(SystemError) -> [UInt8] {
    var bytes = [UInt8](repeating: 0, count: count)
    let got = pread(raw, &bytes, count, offset)
    if got < 0 { throw SystemError(call: "pread", number: errno) }
    return Array(bytes.prefix(got))
  }

  /// read(2), for files without positions.
  func readNext(_ count: Int) throws(SystemError) -> [UInt8] {
    var bytes = [UInt8](repeating: 0, count: count)
    let got = Glibc.read(raw, &bytes, count)
    if got < 0 { throw SystemError(call: "read", number: errno) }
    return Array(bytes.prefix(got))
  }

  func write(_ bytes: [UInt8], at offset: Int) throws(SystemError) {
    let done = pwrite(raw, bytes, bytes.count, offset)
    if done < 0 { throw SystemError(call: "pwrite", number: errno) }
  }
}

/// Mounting works here: the device is there and may be opened.
let canMount = access("/dev/fuse", R_OK | W_OK) == 0 || getenv("CI") != nil
