internal import CHost
internal import Fuse
internal import Glibc
internal import HostSystem
internal import SystemPackage

// Processes as the program needs them: the daemon that a mount leaves behind, and waiting for it.
//
// A mount is usable when `chainfs mount` returns, so the daemon has to say when it is, or why it is
// not. It does so through a pipe: "ready", or the reason. Whichever way the daemon ends, its end of
// the pipe closes and the parent learns of it. The fork comes before any thread exists, since
// only the calling thread lives on in the child; there it hands over to a thread that was born in the
// child, see `Worker.replaceThread`.

/// The daemon's side of the pipe to the command that started it.
final class ReadySignal {
  private var descriptor: Int32

  init(descriptor: Int32) {
    self.descriptor = descriptor
  }

  /// Tells the parent, once; what is said later has nobody to hear it.
  func send(_ text: String) {
    guard descriptor >= 0 else { return }
    do {
      _ = try FileDescriptor(rawValue: descriptor).writeAll(text.utf8)
    } catch {
      // A parent that was killed is no reason to stop.
    }
    _ = close(descriptor)
    descriptor = -1
  }
}

enum Processes {
  static let readyText = "ready"

  /// Gives /dev/null to each standard stream that the caller has closed.
  ///
  /// Otherwise the next file to be opened, an image, would get its number, and what is printed or
  /// logged would be written over the image's header.
  static func fillStandardStreams() {
    for stream in [STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO] where fcntl(stream, F_GETFD) < 0 {
      // Alive: the path is a literal. The lowest number that is free is this one.
      guard unsafe open("/dev/null", O_RDWR) == stream else { _exit(EXIT_FAILURE) }
    }
  }

  /// Runs `body` in a daemon; returns once it has called `send("ready")`.
  ///
  /// Any other text that it sends is the reason why it could not start, and is thrown. `preparing` is
  /// called by the daemon's first thread, before there is another one.
  static func startDaemon<Prepared: Sendable>(
    preparing: () -> Prepared, _ body: @escaping @Sendable (ReadySignal, Prepared) -> Int32
  ) throws {
    var ends: [Int32] = [-1, -1]
    try Files.naming("daemon") { () throws(SystemError) in
      // In bounds and alive: the array has the two elements that pipe fills.
      _ = try SystemCall.retrying("pipe") { unsafe chainfs_pipe(&ends) }
    }
    let child = try Files.naming("daemon") { () throws(SystemError) in try SystemCall.fork() }
    if child == 0 {
      _ = close(ends[0])
      _ = setsid()
      // No directory is kept busy by a daemon.
      _ = unsafe chdir("/")
      let descriptor = ends[1]
      let prepared = preparing()
      do throws(SystemError) {
        try Worker.replaceThread { _exit(body(ReadySignal(descriptor: descriptor), prepared)) }
      } catch {
        ReadySignal(descriptor: descriptor).send("daemon: \(error)")
      }
      _exit(1)
    }
    _ = close(ends[1])
    let text = try readAll(OwnedDescriptor(taking: ends[0]))
    if text == readyText { return }
    var status: Int32 = 0
    try Files.naming("daemon") { () throws(SystemError) in
      // Alive: the status lives through the call.
      _ = try SystemCall.retrying("waitpid") { unsafe waitpid(child, &status, 0) }
    }
    guard text.isEmpty else { throw CommandFailure(text) }
    throw CommandFailure(
      "the daemon ended before the mount was usable (wait status \(status)); see the log")
  }

  /// Lets go of the terminal or pipe that the command was started on.
  static func detachStandardStreams(log: String?) throws {
    try Files.naming("/dev/null") { () throws(SystemError) in
      let null = try SystemCall.open("/dev/null", flags: O_RDWR)
      for stream in [STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO]
      where stream != STDERR_FILENO || log == nil {
        _ = try SystemCall.retrying("dup2") { dup2(null.raw, stream) }
      }
    }
  }

  /// Sends standard error to a file, at its end.
  static func redirectStandardError(to path: String) throws {
    try Files.naming(path) { () throws(SystemError) in
      let flags = O_WRONLY | O_CREAT | O_APPEND | O_NOCTTY
      let file = try SystemCall.open(path, flags: flags, mode: 0o640)
      _ = try SystemCall.retrying("dup2") { dup2(file.raw, STDERR_FILENO) }
    }
  }

  /// The process that serves a mount, as the mount itself says.
  ///
  /// Nothing is left open: the mount would be busy.
  static func server(of mountpoint: String) throws -> Int32 {
    let root: OwnedDescriptor
    do {
      root = try SystemCall.open(mountpoint, flags: O_RDONLY | O_DIRECTORY)
    } catch {
      // Root is kept out of nothing but of what others have mounted by FUSE.
      let hint = error.number == EACCES && geteuid() == 0 ? ", even to root; use umount(8)" : ""
      throw CommandFailure("\(mountpoint): \(error.reason)\(hint)")
    }
    var process: Int32 = 0
    // Alive: the kernel fills this local, for the length of the call.
    let status = unsafe chainfs_ioctl_int(root.raw, FuseSession.processQuestion, &process)
    guard status >= 0, process > 0 else {
      throw CommandFailure("\(mountpoint) is not a mounted chainfs")
    }
    return process
  }

  /// A descriptor that tells when a process has ended.
  static func watch(_ process: Int32) throws -> OwnedDescriptor {
    try Files.naming("process \(process)") { () throws(SystemError) in
      OwnedDescriptor(
        taking: try SystemCall.retrying("pidfd_open") { chainfs_pidfd_open(process) })
    }
  }

  /// Waits until the watched process has ended; what takes longer than `patience` seconds is told once.
  static func waitForEnd(
    _ watched: borrowing OwnedDescriptor, patience: Int32, isLate: () -> Void
  ) throws {
    var entry = pollfd(fd: watched.raw, events: Int16(POLLIN), revents: 0)
    try Files.naming("process") { () throws(SystemError) in
      func wait(milliseconds: Int32) throws(SystemError) -> Bool {
        // In bounds and alive: one entry, which lives through the call.
        try SystemCall.retrying("poll") { unsafe poll(&entry, 1, milliseconds) } > 0
      }
      if try wait(milliseconds: patience * 1000) { return }
      isLate()
      _ = try wait(milliseconds: -1)
    }
  }

  /// Takes a mount out of the tree; EBUSY while somebody has a file of it open.
  static func unmount(_ mountpoint: String) throws(SystemError) {
    // Alive: the string's bytes live through the call.
    if geteuid() == 0 {
      _ = try SystemCall.retrying("umount") { unsafe chainfs_unmount(mountpoint) }
    } else if try run(["fusermount3", "-u", "--", mountpoint]) != 0 {
      throw SystemError(call: "fusermount3", number: EBUSY)
    }
  }

  /// Runs another program and gives its wait status.
  private static func run(_ arguments: [String]) throws(SystemError) -> Int32 {
    var child: pid_t = 0
    var status: Int32 = 0
    // Alive: the copies are freed after the calls; the list ends with the nil that C wants.
    var words = unsafe arguments.map { unsafe strdup($0) }
    unsafe words.append(nil)
    defer {
      for index in unsafe words.indices { unsafe free(words[index]) }
    }
    try SystemCall.checking(
      "posix_spawn", unsafe posix_spawnp(&child, arguments[0], nil, nil, words, environ))
    _ = try SystemCall.retrying("waitpid") { unsafe waitpid(child, &status, 0) }
    return status
  }

  private static func readAll(_ descriptor: consuming OwnedDescriptor) throws -> String {
    var text: [UInt8] = []
    var part = [UInt8](repeating: 0, count: 4096)
    while true {
      let length = try Files.naming("daemon") { () throws(SystemError) in
        // In bounds and alive: the array lives through the call, its own count is passed.
        try SystemCall.retrying("read") { unsafe read(descriptor.raw, &part, part.count) }
      }
      if length == 0 { return String(decoding: text, as: UTF8.self) }
      text += part[..<length]
    }
  }
}
