import Foundation

/// Somebody who serves an image as a flat file.
protocol Peer: Sendable {
  /// What the table calls it.
  var name: String { get }
  /// It can do this kind of work at all.
  func serves(_ needs: Needs) -> Bool
  /// Serves an image that lies in the directory.
  func serve(_ image: ServedImage, for needs: Needs, in directory: String) throws -> Export
}

/// What a row asks of a peer.
enum Needs: Sendable {
  /// A flat file with the disk's content.
  case flatFile
  /// Images with an overlay.
  case overlay
  /// A chain of any depth.
  case depth
  /// Jobs: to start them, and to ask for them.
  case jobs
}

/// The image that a row measures.
struct ServedImage: Sendable {
  /// The qcow2 file at the top, in the row's directory.
  var image: String
  /// A raw file with the same bytes, which the host serves itself; none where that would say nothing.
  var raw = ""
  /// MiB of the disk.
  var size: Int
  /// The row writes past the page cache. chainfs is told so, which is worth something to small writes;
  /// for all other work it is mounted with its defaults.
  var isWrittenDirectly = false
}

/// The raw file, as the host serves it: the limit.
struct RawPeer: Peer {
  /// Its name.
  static let kind = "raw file"
  var name: String { Self.kind }

  func serves(_ needs: Needs) -> Bool { needs == .flatFile }

  func serve(_ image: ServedImage, for needs: Needs, in directory: String) throws -> Export {
    Export(file: "\(directory)/\(image.raw)")
  }
}

/// chainfs itself.
struct ChainfsPeer: Peer {
  /// Its name.
  static let kind = "chainfs"
  var name: String { Self.kind }
  let program: String

  func serves(_ needs: Needs) -> Bool { true }

  func serve(_ image: ServedImage, for needs: Needs, in directory: String) throws -> Export {
    let place = "\(directory)/mnt-chainfs"
    let cache = image.isWrittenDirectly ? "-o cache=none " : ""
    try Tool.run("mkdir -p \(place)")
    let seconds = try Tool.seconds(
      of: "\(program) mount \(cache)vda=\(image.image) \(place)", in: directory)
    try Tool.run("\(program) status --pid \(place) > chainfs.pid", in: directory)
    return Export(
      file: "\(place)/vda", processes: [try Tool.process(from: "\(directory)/chainfs.pid")],
      openingSeconds: seconds, control: ControlFiles(directory: "\(place)/.jobs/vda")
    ) { [program] in
      try Tool.run("\(program) unmount \(place)")
    }
  }
}

/// Who is there to be measured.
struct Peers {
  /// chainfs first.
  let all: [any Peer]

  init(chainfs: String?, storageDaemons: [String], measuresNBD: Bool) throws {
    let beside = URL(fileURLWithPath: CommandLine.arguments[0]).deletingLastPathComponent()
      .appendingPathComponent("chainfs").path
    let program = chainfs ?? (Tool.find("chainfs-bench") == nil ? beside : "chainfs")
    guard let path = program.contains("/") ? program : Tool.find(program),
      FileManager.default.isExecutableFile(atPath: path)
    else { throw BenchError("no chainfs at \(program); name one with --chainfs") }
    for tool in ["fio", "qemu-img", "qemu-io", "setpriv", "losetup"]
    where Tool.find(tool) == nil {
      throw BenchError("\(tool) is missing; install it")
    }
    var peers: [any Peer] = [
      ChainfsPeer(program: URL(fileURLWithPath: path).standardizedFileURL.path), RawPeer(),
    ]
    let found =
      storageDaemons.isEmpty
      ? [Tool.find("qemu-storage-daemon")].compactMap { $0 } : storageDaemons
    for daemon in found { peers.append(try StorageDaemonPeer(program: daemon)) }
    if measuresNBD, Tool.find("qemu-nbd") != nil, Tool.find("nbdfuse") != nil {
      peers.append(NBDFusePeer())
    }
    all = peers
  }
}
