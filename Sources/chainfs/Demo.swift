internal import ArgumentParser
internal import FoundationEssentials

// A walk through what chainfs does, on a chain of its own in a temporary directory. It goes through
// the program's own commands, prints each as one would type it, and keeps beside the disk a plain
// array of the bytes that it must hold: after every step the whole disk is compared with it.

struct Demo: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Makes a small chain, mounts it and streams it, checking every byte.")

  func run() throws {
    let directory = try Self.makeDirectory()
    var walk = DemoWalk(directory: directory)
    do {
      try walk.run()
    } catch {
      walk.say("the demo failed; its files were removed")
      walk.cleanUp()
      throw error
    }
    walk.cleanUp()
    walk.say("done: every byte was as it had to be")
  }

  private static func makeDirectory() throws -> String {
    let parent = FileManager.default.temporaryDirectory.path
    let path = "\(parent.hasSuffix("/") ? parent : parent + "/")chainfs-demo-\(UUID().uuidString)"
    do {
      try FileManager.default.createDirectory(
        atPath: path + "/mnt", withIntermediateDirectories: true)
    } catch {
      throw CommandFailure("\(path): cannot be made; is there room in \(parent)?")
    }
    return path
  }
}

/// The steps, and the bytes that the disk has to hold after each.
struct DemoWalk {
  private static let mebibyte = 1 << 20
  private static let diskSize = 64 * mebibyte

  let directory: String
  private var expected = [UInt8](repeating: 0, count: diskSize)
  private var seed: UInt64 = 1

  init(directory: String) {
    self.directory = directory
  }

  private var mountpoint: String { directory + "/mnt" }
  private var device: String { mountpoint + "/vda" }

  /// The whole walk; throws at the first difference.
  mutating func run() throws {
    try makeChain()
    try streamAndCancel()
    try streamToTheEnd()
    try lookAfterwards()
  }

  private mutating func makeChain() throws {
    say("a disk of 64 MiB in an image of our own")
    try command("create", directory + "/base.qcow2", "64M")
    try command("mount", "vda=\(directory)/base.qcow2", mountpoint)
    try write(at: 0, count: 24 * Self.mebibyte)
    try compare("what was written reads back")

    say("two live snapshots, with writes after each")
    try command("snapshot", device, directory + "/sn1.qcow2")
    try write(at: 8 * Self.mebibyte + 4321, count: 8 * Self.mebibyte)
    try command("snapshot", device, directory + "/sn2.qcow2")
    try write(at: 30 * Self.mebibyte - 1, count: 4 * Self.mebibyte)
    try compare("the disk is the same through three layers")
    try show("chain")
  }

  private mutating func streamAndCancel() throws {
    say("stream the whole chain at 4 MiB a second, and use the disk meanwhile")
    try command("stream", "--speed", "4M", device)
    try write(at: 2 * Self.mebibyte + 77, count: Self.mebibyte)
    try show("status")
    try compare("reads and writes go on while the job runs")
    say("another limit")
    try command("speed", device, "16M")
    try command("speed", device)
    Clock.wait(milliseconds: 300)
    try write(at: 20 * Self.mebibyte + 5, count: Self.mebibyte)
    say("cancel; what was copied stays")
    try command("cancel", device)
    try show("wait")
    try show("status")
    try compare("a cancelled job leaves the same disk")
  }

  private func streamToTheEnd() throws {
    say("stream again: what is there already is skipped")
    try command("stream", "--wait", device)
    let job = JobProgress(device: "vda", text: try read("status"))
    try show("status")
    try require(job["state"] == "completed", "the job is completed")
    try require((job["skipped"].flatMap(Int.init) ?? 0) > 0, "copied clusters were skipped")
    let layers = try read("chain").split(separator: "\n")
    try require(layers.count == 1, "one layer is left")
    try compare("the disk is the same without its backing files")
  }

  private func lookAfterwards() throws {
    say("unmount, check the image, and look at it once more")
    try command("unmount", mountpoint)
    try command("check", directory + "/sn2.qcow2")
    try command("info", directory + "/sn2.qcow2")
    try command("mount", "-o", "ro", "vda=\(directory)/sn2.qcow2", mountpoint)
    try compare("everything is on disk")
    try command("unmount", mountpoint)
  }

  /// Unmounts what is mounted and removes the demo's files.
  func cleanUp() {
    do {
      if Files.isDirectory(mountpoint + "/.jobs") {
        try command("unmount", mountpoint)
      }
      try FileManager.default.removeItem(atPath: directory)
    } catch {
      Terminal.complain("\(directory) is left behind: \(error)")
    }
  }

  /// A line for the one who looks on.
  func say(_ text: String) {
    Terminal.write("# \(text)\n")
  }

  /// Runs a command of the program in this process, printed as one would type it.
  private func command(_ words: String...) throws {
    Terminal.write("$ chainfs \(words.joined(separator: " "))\n")
    var command = try Chainfs.parseAsRoot(words)
    try command.run()
  }

  private func read(_ file: String) throws -> String {
    try Files.text(of: "\(mountpoint)/.jobs/vda/\(file)")
  }

  private func show(_ file: String) throws {
    let path = "\(mountpoint)/.jobs/vda/\(file)"
    Terminal.write("$ cat \(path)\n\(try Files.text(of: path))")
  }

  /// Writes bytes that no other write has written, to the disk and to what is expected of it.
  private mutating func write(at offset: Int, count: Int) throws {
    Terminal.write("  write \(count) bytes at \(offset), fsync\n")
    var bytes = [UInt8](repeating: 0, count: count)
    for index in stride(from: 0, to: count, by: 8) {
      seed = seed &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
      let word = seed ^ (seed >> 29)
      for byte in 0..<min(8, count - index) {
        bytes[index + byte] = UInt8(truncatingIfNeeded: word >> UInt64(byte * 8))
      }
    }
    try Files.writeDurably(bytes, to: device, at: offset)
    expected.replaceSubrange(offset..<offset + count, with: bytes)
  }

  private func compare(_ claim: String) throws {
    let bytes = try Files.bytes(of: device, at: 0, count: Self.diskSize)
    guard bytes != expected else { return say("ok: \(claim)") }
    let place = zip(bytes, expected).enumerated().first { $1.0 != $1.1 }?.offset
    throw CommandFailure(
      "not so: \(claim); the disk differs at \(place.map { "byte \($0)" } ?? "its end")")
  }

  private func require(_ isSo: Bool, _ claim: String) throws {
    guard isSo else { throw CommandFailure("not so: \(claim)") }
    say("ok: \(claim)")
  }
}
