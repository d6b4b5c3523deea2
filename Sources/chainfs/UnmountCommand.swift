internal import ArgumentParser
internal import HostSystem

// umount(2) returns when the mount has left the tree; the daemon flushes, gives back and unlocks
// afterwards. So the command first gets hold of the daemon, then unmounts, then waits for its end:
// the process number cannot have gone to somebody else in between.

struct Unmount: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Unmounts; returns when everything is on disk and the images are released.")

  @Argument(help: "Where the filesystem is mounted.")
  var mountpoint: String

  func run() throws {
    let place = try AbsolutePath.of(mountpoint)
    let process = try Processes.server(of: place)
    let server = try Processes.watch(process)
    do {
      try Processes.unmount(place)
    } catch {
      guard error.kind != .busy else {
        throw CommandFailure(
          "\(mountpoint) is in use and stays mounted; see who has it open with: fuser -vm \(place)")
      }
      throw CommandFailure("\(mountpoint): \(error.reason)")
    }
    // A copy of the mount in another namespace keeps the daemon, and the images, for as long as it is there.
    try Processes.waitForEnd(server, patience: 5) {
      Terminal.complain(
        "\(mountpoint) is unmounted, but its daemon (pid \(process)) is not done yet: it writes what is"
          + " left, or another mount namespace still has the mount")
    }
  }
}
