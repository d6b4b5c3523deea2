import Foundation
import HostSystem

/// QEMU's storage daemon with its FUSE export.
///
/// It cannot stream what it exports for writing, so a row with jobs gets an export that is read-only.
struct StorageDaemonPeer: Peer {
  /// What the names of all of them begin with.
  static let kind = "QSD"
  let name: String
  let program: String

  init(program: String) throws {
    // A relative path would be looked for in the directory of the row.
    self.program =
      program.contains("/") ? URL(fileURLWithPath: program).standardizedFileURL.path : program
    let version = try Tool.run("\(ShellWord(self.program)) --version | grep -om1 '[0-9][0-9.]*'")
    name = "\(Self.kind) " + version.prefix { $0 != "\n" }
  }

  func serves(_ needs: Needs) -> Bool { true }

  func serve(_ image: ServedImage, for needs: Needs, in directory: String) throws -> Export {
    let place = "\(directory)/export-qsd"
    let pidFile = "\(directory)/qsd.pid"
    let socket = "\(directory)/qsd.socket"
    let monitor =
      "--chardev socket,id=qmp,path=\(socket),server=on,wait=off --monitor chardev=qmp"
    // A chain has more files than a process may have open by default.
    try Tool.run(": > \(place); rm -f \(pidFile)")
    let seconds = try Tool.seconds(
      of: """
        ulimit -n $(ulimit -Hn)
        \(ShellWord(program)) --daemonize --pidfile \(pidFile) \(needs == .jobs ? monitor : "") \
          --blockdev driver=file,node-name=file,filename=\(directory)/\(image.image) \
          --blockdev driver=qcow2,node-name=\(QMPControl.node),file=file \
          --export type=fuse,id=export,node-name=\(QMPControl.node),mountpoint=\(place),\
        writable=\(needs == .jobs ? "off" : "on"),growable=off
        """, in: directory)
    let process = try Tool.process(from: pidFile)
    return Export(
      file: place, processes: [process], openingSeconds: seconds,
      control: needs == .jobs ? try QMPControl(path: socket) : nil
    ) {
      try Self.end([process])
    }
  }

  /// Sends SIGTERM to daemons that may have ended already, and waits until they are gone.
  static func end(_ processes: [Int32]) throws {
    let ids = processes.map(String.init).joined(separator: " ")
    try Tool.run(
      """
      kill \(ids) 2> /dev/null || true
      for id in \(ids); do
        # One that nobody has asked for yet is gone, too.
        while grep -qs '^State:.[^Z]' /proc/$id/status; do sleep 0.02; done
      done
      """)
  }
}

/// qemu-nbd with libnbd's nbdfuse in front.
struct NBDFusePeer: Peer {
  let name = "nbdfuse"

  func serves(_ needs: Needs) -> Bool { needs == .flatFile || needs == .overlay }

  func serve(_ image: ServedImage, for needs: Needs, in directory: String) throws -> Export {
    let place = "\(directory)/export-nbd"
    let socket = "\(directory)/nbd.socket"
    let seconds = try Tool.seconds(
      of: """
        : > \(place)
        qemu-nbd -f qcow2 -k \(socket) -t --fork --pid-file=\(directory)/nbd.pid \(image.image)
        nbdfuse \(place) --unix \(socket) & echo $! > \(directory)/nbdfuse.pid
        until grep -q ' \(place) ' /proc/mounts; do sleep 0.02; done
        """, in: directory)
    let processes = try ["nbd", "nbdfuse"].map {
      try Tool.process(from: "\(directory)/\($0).pid")
    }
    return Export(file: place, processes: processes, openingSeconds: seconds) {
      try Tool.run("umount \(place)")
      try StorageDaemonPeer.end(processes)
    }
  }
}
