internal import Chain
internal import Encryption
internal import Glibc
internal import HostSystem

// The secret of encrypted images: a file, or typed where somebody sits at a terminal. It is read while
// the command is still in the foreground, so that a pipe (`secret=/dev/stdin`) or a question works.
//
// A file is taken byte by byte as QEMU takes it: a newline at its end belongs to the secret. What is
// typed ends with the newline, which does not.

/// Where a mount's secret comes from.
enum Secrets {
  /// The largest file that is taken for a secret.
  private static let largestFile = 64 << 10

  /// The secret in the file, or what is typed if an image needs one and there is nobody else to ask.
  static func secret(
    from path: String?, for devices: [DeviceConfiguration]
  ) throws -> SecretBytes? {
    if let path {
      var bytes = try read(path)
      return try named(path) { () throws(EncryptionError) in
        try SecretBytes(passphrase: &bytes)
      }
    }
    guard isatty(STDIN_FILENO) == 1, devices.contains(where: needsSecret) else { return nil }
    var bytes = try SecretPrompt.ask("Secret of the encrypted images: ")
    return try named("the secret") { () throws(EncryptionError) in
      try SecretBytes(passphrase: &bytes)
    }
  }

  /// Whether the disk has an encrypted layer. What cannot be opened now is the mount's to tell.
  private static func needsSecret(_ device: DeviceConfiguration) -> Bool {
    var look = device
    look.isReadOnly = true
    look.locking = .none
    look.encryptedImages = .tablesOnly
    do {
      let disk = try Disk.open(look)
      let isNeeded = try disk.layers().contains(where: \.isEncrypted)
      try disk.close()
      return isNeeded
    } catch {
      return false
    }
  }

  private static func read(_ path: String) throws(CommandFailure) -> [UInt8] {
    try Files.naming(path) { () throws(SystemError) in
      let file = try SystemCall.open(path, flags: O_RDONLY)
      // Read into one array, so that no copies of it are left behind.
      var bytes = [UInt8](repeating: 0, count: largestFile + 1)
      var count = 0
      while count < bytes.count {
        var buffer = bytes.mutableRawSpan
        var rest = buffer.slice(count..<buffer.byteCount)
        let part = try SystemCall.readNext(file.raw, into: &rest)
        if part == 0 {
          bytes.removeLast(bytes.count - count)
          return bytes
        }
        count += part
      }
      throw SystemError(call: "read", number: EFBIG)
    }
  }

  private static func named<Result>(
    _ name: String, _ body: () throws(EncryptionError) -> Result
  ) throws(CommandFailure) -> Result {
    do {
      return try body()
    } catch {
      throw CommandFailure("\(name): \(error)")
    }
  }
}

/// A question whose answer is not shown.
enum SecretPrompt {
  /// The longest answer that a terminal gives at once.
  private static let longestLine = 4096

  /// Asks on standard error and reads a line from standard input, a terminal, without its newline.
  static func ask(_ question: String) throws(CommandFailure) -> [UInt8] {
    // A signal that ended the program here would leave a terminal that shows nothing.
    let signals = [SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGTSTP]
    let former = signals.map { signal($0, SIG_IGN) }
    defer {
      for (number, action) in zip(signals, former) { signal(number, action) }
    }
    var settings = termios()
    // In bounds: the settings are this function's own.
    guard unsafe tcgetattr(STDIN_FILENO, &settings) == 0 else {
      throw CommandFailure("the terminal cannot be asked for the secret; use -o secret=FILE")
    }
    var silent = settings
    silent.c_lflag &= ~UInt32(ECHO | ISIG)
    // As above.
    unsafe tcsetattr(STDIN_FILENO, TCSAFLUSH, &silent)
    defer {
      // As above.
      unsafe tcsetattr(STDIN_FILENO, TCSAFLUSH, &settings)
      Terminal.complain(line: "")
    }
    Terminal.ask(question)
    var line = [UInt8](repeating: 0, count: longestLine)
    do {
      var buffer = line.mutableRawSpan
      let count = try SystemCall.readNext(STDIN_FILENO, into: &buffer)
      line.removeLast(line.count - count)
    } catch {
      throw CommandFailure("the terminal gave no secret: \(error.reason)")
    }
    // Control-C came as a character: the terminal sends no signals meanwhile.
    guard line.last == UInt8(ascii: "\n"), !line.contains(3) else {
      throw CommandFailure("no secret was given")
    }
    line.removeLast()
    return line
  }
}
