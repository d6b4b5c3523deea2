import BlockIO
import Foundation
import HostSystem
import ImageDriver
import TestSupport
import Testing

@testable import Chain

@Suite("Open policy", .enabled(if: Workbench.hasTool("qemu-img")))
struct OpenPolicyTests {
  func open(_ bench: Workbench, _ name: String, root: String? = nil) throws(ChainError) -> Disk {
    try Disk.open(
      DeviceConfiguration(
        name: "vda", image: .qcow2(path: bench.path(name)), isReadOnly: true, backingRoot: root))
  }

  /// Base and overlay, the overlay naming the base by any string, unchecked.
  func pair(_ bench: Workbench, base: String = "qcow2", name: String, format: String?) throws {
    try bench.qemuImg("create", "-f", base, "base", "1M")
    try bench.qemuIO("base", format: base, ["write -P 7 0 64k"])
    let file = try HostFile.create(bench.path("top"))
    try ImageBuilder.create(
      on: file, virtualSize: 1 << 20, backing: BackingReference(name: name, format: format))
    file.close()
  }

  @Test("names that lead to the base open it", arguments: 0..<8)
  func names(row: Int) throws {
    let bench = try Workbench()
    let place = bench.path("base")
    let (name, base, format): (String, String, String?) =
      [
        ("base", "qcow2", "qcow2"), (place, "qcow2", "qcow2"), ("base", "raw", "raw"),
        ("file:" + place, "raw", "raw"), ("./base", "qcow2", nil),
        (
          #"json:{"driver":"qcow2","file":{"driver":"file","filename":""# + place + #""}}"#,
          "qcow2", "qcow2"
        ),
        (#"json:{"driver":"raw","file.filename":""# + place + #""}"#, "raw", "raw"),
        // A raw backing file stays raw whatever its bytes look like.
        ("base", "qcow2", "raw"),
      ][row]
    try pair(bench, base: base, name: name, format: format)
    let disk = try open(bench, "top")
    let first = try disk.bytes(at: 0, count: 4)
    #expect(first == (row == 7 ? [0x51, 0x46, 0x49, 0xFB] : [7, 7, 7, 7]))
    #expect(try disk.layers().map(\.format) == ["qcow2", format ?? "qcow2"])
    try disk.close()
  }

  @Test("a raw backing file without a named format is refused with the line that mends it")
  func missingFormat() throws {
    let bench = try Workbench()
    try pair(bench, base: "raw", name: "base", format: nil)
    do {
      _ = try open(bench, "top")
      Issue.record("a raw file was guessed")
    } catch {
      #expect(error.kind == .invalid)
      #expect(
        error.description.contains("qemu-img rebase -u -F raw -b base \(bench.path("top"))"))
    }
    try bench.run("qemu-img", ["rebase", "-u", "-F", "raw", "-b", "base", "top"])
    try open(bench, "top").close()
  }

  @Test("a format that is named but not there is refused")
  func wrongFormat() throws {
    let bench = try Workbench()
    try pair(bench, base: "raw", name: "base", format: "qcow2")
    do {
      _ = try open(bench, "top")
      Issue.record("it was opened")
    } catch {
      guard case .backingNotQcow2 = error else { throw error }
    }
  }

  @Test("an image that is not qcow2 needs raw: in front")
  func notQcow2() throws {
    let bench = try Workbench()
    for bytes in [[], [1, 2, 3], [UInt8](repeating: 0, count: 4096)] as [[UInt8]] {
      try Data(bytes).write(to: URL(fileURLWithPath: bench.path("disk")))
      do {
        _ = try open(bench, "disk")
        Issue.record("it was opened")
      } catch {
        #expect(error.kind == .invalid)
        #expect(error.description.contains("raw:\(bench.path("disk"))"))
      }
    }
  }

  @Test("a missing backing file and a loop are told by name")
  func missingAndLoop() throws {
    let bench = try Workbench()
    try pair(bench, name: "gone", format: "qcow2")
    do {
      _ = try open(bench, "top")
      Issue.record("it was opened")
    } catch {
      #expect(error.kind == .notFound)
      #expect(error.description.contains(bench.path("gone")))
    }
    try bench.qemuImg("rebase", "-u", "-b", "base", "-F", "qcow2", "top")
    try bench.run("ln", ["top", "other"])
    try bench.qemuImg("rebase", "-u", "-b", "other", "-F", "qcow2", "base")
    do {
      _ = try open(bench, "top")
      Issue.record("it was opened")
    } catch {
      #expect(error.kind == .loop)
      #expect(error.description.contains("other"))
    }
  }

  @Test("backing files outside of backing-root are refused, links resolved")
  func root() throws {
    let bench = try Workbench()
    try bench.run("mkdir", ["in"])
    try bench.qemuImg("create", "-f", "qcow2", "in/base", "1M")
    try bench.qemuImg("create", "-f", "qcow2", "out", "1M")
    try bench.run("ln", ["-s", "../out", "in/link"])
    try bench.run("ln", ["-s", "in/base", "link"])
    for (below, isAllowed) in [
      ("in/base", true), ("link", true), ("in/link", false), ("out", false), ("in/../out", false),
    ] {
      try bench.run("rm", ["-f", "top"])
      try bench.qemuImg("create", "-f", "qcow2", "-b", below, "-F", "qcow2", "top", "1M")
      do {
        try open(bench, "top", root: bench.path("in")).close()
        #expect(isAllowed, "\(below)")
      } catch {
        #expect(!isAllowed, "\(error)")
        #expect(error.kind == .notPermitted)
      }
    }
  }

  /// The host's files, in a directory whose owner turns a link between two looks at it.
  struct TurningLink: ImageFiles {
    let link: String
    let inside: String
    let outside: String
    let host = HostImageFiles()

    private func turn(to target: String) {
      unlink(link)
      symlink(target, link)
    }

    func open(
      _ path: String, role: StorageRole, isReadOnly: Bool, isLocked: Bool
    ) throws(StorageError) -> any BlockStorage {
      turn(to: outside)
      return try host.open(path, role: role, isReadOnly: isReadOnly, isLocked: isLocked)
    }
    func create(
      _ path: String, like other: any BlockStorage, isLocked: Bool
    ) throws(StorageError) -> any BlockStorage {
      try host.create(path, like: other, isLocked: isLocked)
    }
    func writer(over layer: any BlockStorage) throws(StorageError) -> any BlockStorage {
      try host.writer(over: layer)
    }
    func giveUp(_ writer: any BlockStorage, over layer: any BlockStorage) {
      host.giveUp(writer, over: layer)
    }
    func remove(_ path: String) throws(StorageError) { try host.remove(path) }
    func flushName(of path: String) throws(StorageError) { try host.flushName(of: path) }
    func identity(of path: String) throws(StorageError) -> StorageIdentity {
      turn(to: outside)
      return try host.identity(of: path)
    }
    func absolutePath(of path: String) throws(StorageError) -> String {
      try host.absolutePath(of: path)
    }
    func location(of storage: any BlockStorage) throws(StorageError) -> String {
      turn(to: inside)
      return try host.location(of: storage)
    }
    func canonicalPath(of path: String) throws(StorageError) -> String {
      turn(to: inside)
      return try host.canonicalPath(of: path)
    }
  }

  @Test("a link that is turned between check and open leads nowhere", arguments: ["raw", "qcow2"])
  func turnedLink(format: String) throws {
    let bench = try Workbench()
    try bench.run("mkdir", ["in"])
    for file in ["in/base", "secret"] { try bench.qemuImg("create", "-f", format, file, "1M") }
    try bench.run("ln", ["-s", "base", "in/link"])
    try bench.qemuImg("create", "-f", "qcow2", "-b", "in/link", "-F", format, "top", "1M")
    let configuration = DeviceConfiguration(
      name: "vda", image: .qcow2(path: bench.path("top")), isReadOnly: true,
      backingRoot: bench.path("in"))
    try Disk.open(configuration).close()
    let files = TurningLink(
      link: bench.path("in/link"), inside: bench.path("in/base"), outside: bench.path("secret"))
    do {
      try Disk.open(configuration, files: files).close()
      Issue.record("it was opened")
    } catch {
      guard case .outsideRoot(let place, _) = error else { throw error }
      #expect(place.hasSuffix("/secret"))
    }
  }

  @Test("the data file of the active image has to lie in backing-root too")
  func dataFileInRoot() throws {
    let bench = try Workbench()
    try bench.run("mkdir", ["in"])
    for (name, isAllowed) in [("in/data", true), ("data", false), ("in/../data", false)] {
      try bench.run("rm", ["-f", "top", "in/data", "data"])
      try bench.qemuImg("create", "-f", "qcow2", "-o", "data_file=\(name)", "top", "1M")
      do {
        try open(bench, "top", root: bench.path("in")).close()
        #expect(isAllowed, "\(name)")
      } catch {
        #expect(!isAllowed, "\(error)")
        #expect(error.kind == .notPermitted)
      }
      try open(bench, "top").close()
    }
  }

  @Test("an image that another process writes is refused, and named")
  func locked() throws {
    let bench = try Workbench()
    try pair(bench, name: "base", format: "qcow2")
    let disk = try Disk.open(
      DeviceConfiguration(name: "vda", image: .qcow2(path: bench.path("top"))))
    for name in ["top", "base"] {
      #expect(throws: CommandFailure.self) { try bench.qemuIO(name, ["write -P 1 0 64k"]) }
    }
    try disk.close()
    for name in ["top", "base"] { try bench.qemuIO(name, ["write -P 1 0 64k"]) }
  }
}
