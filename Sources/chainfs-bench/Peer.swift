import Foundation

/// Somebody who serves an image as a flat file.
protocol Peer: Sendable {
  /// What the table calls it.
  var name: String { get }
  /// It can serve this kind of work at all.
  func serves(_ needs: Needs) -> Bool
  /// Serves a device; the directory holds the images.
  func serve(_ device: ServedImage, in directory: String) throws -> Export
}

/// What a row asks of a peer.
enum Needs: Sendable {
  /// A flat file with the disk's content.
  case flatFile
  /// Images with layers.
  case chain
  /// A stream of the mounted, writable disk.
  case stream
}

/// The image that a row measures.
struct ServedImage: Sendable {
  /// The qcow2 file at the top.
  var image: String
  /// A raw file with the same bytes, which the host serves itself.
  var raw: String
  /// Kept pages are allowed: the row reads or writes through the page cache.
  var isCached = false
}

/// A served file, and who works for it.
final class Export {
  /// The flat file.
  let file: String
  /// The processes whose time and memory count; none for the raw file.
  let processes: [Int32]
  private let end: () throws -> Void

  init(file: String, processes: [Int32], end: @escaping () throws -> Void) {
    self.file = file
    self.processes = processes
    self.end = end
  }

  /// Takes the export down.
  func stop() throws { try end() }

  /// Nanoseconds of processor time that the processes have used so far.
  func processorTime() throws -> Double {
    try processes.reduce(0) { sum, process in
      let threads = "/proc/\(process)/task"
      return try FileManager.default.contentsOfDirectory(atPath: threads).reduce(sum) {
        // The first word: time on a processor.
        let text = try String(contentsOfFile: "\(threads)/\($1)/schedstat", encoding: .utf8)
        return $0 + (Double(text.prefix { $0 != " " }) ?? 0)
      }
    }
  }

  /// MiB of memory that the processes hold.
  func residentMemory() throws -> Double {
    try processes.reduce(0) { sum, process in
      let text = try String(contentsOfFile: "/proc/\(process)/status", encoding: .utf8)
      let line = text.split(separator: "\n").first { $0.hasPrefix("VmRSS:") }
      return sum + (Double((line ?? "").filter(\.isNumber)) ?? 0) / 1024
    }
  }
}

/// chainfs itself.
struct ChainfsPeer: Peer {
  let name = "chainfs"
  let program: String

  func serves(_ needs: Needs) -> Bool { true }

  func serve(_ device: ServedImage, in directory: String) throws -> Export {
    let place = "\(directory)/mnt-chainfs"
    let cache = device.isCached ? "" : "-o cache=none "
    try Tool.run(
      """
      mkdir -p \(place)
      \(program) mount \(cache)vda=\(device.image) \(place)
      """, in: directory)
    let process = try Tool.process("\(program) status --pid \(place)")
    return Export(file: "\(place)/vda", processes: [process]) { [program] in
      try Tool.run("\(program) unmount \(place)")
    }
  }
}

/// The raw file, as the host serves it: the limit.
struct RawPeer: Peer {
  let name = "raw file"

  func serves(_ needs: Needs) -> Bool { needs == .flatFile }

  func serve(_ device: ServedImage, in directory: String) throws -> Export {
    Export(file: "\(directory)/\(device.raw)", processes: []) {}
  }
}

/// QEMU's storage daemon with its FUSE export.
struct StorageDaemonPeer: Peer {
  let name: String
  let program: String

  init(program: String) throws {
    self.program = program
    let version = try Tool.run("\(program) --version | grep -o '[0-9][0-9.]*' | head -1")
    name = "QSD " + version.prefix { $0 != "\n" }
  }

  func serves(_ needs: Needs) -> Bool { needs != .stream }

  func serve(_ device: ServedImage, in directory: String) throws -> Export {
    let place = "\(directory)/export-qsd"
    let pidFile = "\(directory)/qsd.pid"
    try Tool.run(
      """
      : > \(place)
      \(program) --daemonize --pidfile \(pidFile) \
        --blockdev driver=file,node-name=file,filename=\(directory)/\(device.image) \
        --blockdev driver=qcow2,node-name=disk,file=file \
        --export type=fuse,id=export,node-name=disk,mountpoint=\(place),writable=on,growable=off
      """, in: directory)
    let process = try Tool.process("cat \(pidFile)")
    return Export(file: place, processes: [process]) {
      try Tool.run(
        """
        kill \(process)
        for i in $(seq 500); do [ -d /proc/\(process) ] || exit 0; sleep 0.02; done
        exit 1
        """)
    }
  }
}

/// qemu-nbd with libnbd's nbdfuse in front.
struct NBDFusePeer: Peer {
  let name = "nbdfuse"

  func serves(_ needs: Needs) -> Bool { needs != .stream }

  func serve(_ device: ServedImage, in directory: String) throws -> Export {
    let place = "\(directory)/export-nbd"
    let socket = "\(directory)/nbd.socket"
    try Tool.run(
      """
      : > \(place)
      qemu-nbd -f qcow2 -k \(socket) -t --fork --pid-file \(directory)/nbd.pid \(device.image)
      nbdfuse \(place) --unix \(socket) > /dev/null 2>&1 & echo $! > \(directory)/nbdfuse.pid
      for i in $(seq 500); do grep -q ' \(place) ' /proc/mounts && exit 0; sleep 0.02; done
      exit 1
      """, in: directory)
    let processes = try ["nbd", "nbdfuse"].map { try Tool.process("cat \(directory)/\($0).pid") }
    return Export(file: place, processes: processes) {
      try Tool.run("umount \(place); kill $(cat \(directory)/nbd.pid)")
    }
  }
}

/// Who is there to be measured.
struct Peers {
  /// chainfs first.
  let all: [any Peer]

  init(chainfs: String?, storageDaemons: [String]) throws {
    let beside = URL(fileURLWithPath: CommandLine.arguments[0]).deletingLastPathComponent()
      .appendingPathComponent("chainfs").path
    let program = chainfs ?? (Tool.find("chainfs-bench") == nil ? beside : "chainfs")
    guard FileManager.default.isExecutableFile(atPath: program) || Tool.find(program) != nil else {
      throw BenchError("no chainfs at \(program); name one with --chainfs")
    }
    for tool in ["fio", "qemu-img"] where Tool.find(tool) == nil {
      throw BenchError("\(tool) is missing; install it")
    }
    var peers: [any Peer] = [ChainfsPeer(program: program), RawPeer()]
    let found =
      storageDaemons.isEmpty
      ? [Tool.find("qemu-storage-daemon")].compactMap { $0 } : storageDaemons
    for daemon in found { peers.append(try StorageDaemonPeer(program: daemon)) }
    if Tool.find("qemu-nbd") != nil, Tool.find("nbdfuse") != nil { peers.append(NBDFusePeer()) }
    all = peers
  }
}
