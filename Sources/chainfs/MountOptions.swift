internal import Chain
internal import Filesystem

// The words of `-o`. They are the same for the command line, mount(8) and fstab, so they are parsed
// in one place, refused when unknown, and are values by the time anything is opened.

/// What `-o` asks for; the defaults are those of the man page.
struct MountOptions {
  var isReadOnly = false
  var allowsOther = false
  var allowsRoot = false
  var userID: UInt32?
  var groupID: UInt32?
  var modeMask: UInt32 = 0
  var cache: MountConfiguration.Caching?
  var discard = DeviceConfiguration.Discard.unmap
  var detectZeroes = DeviceConfiguration.DetectZeroes.off
  var isGrowable = false
  var resumesJobs = true
  var locksImages = true
  var threads: Int?
  /// Requests may come through io_uring.
  var usesRings = false
  var mapCacheBytes: UInt64?
  var backingRoot: String?
  /// The file with the secret of encrypted images.
  var secretPath: String?
  var logPath: String?
  var qmpPath: String?

  /// Every option's name, as the man page lists them.
  static let names = [
    "ro", "rw", "allow_other", "allow_root", "uid", "gid", "umask", "cache", "discard",
    "detect-zeroes", "growable", "noresume", "nolock", "threads", "io_uring", "map-cache",
    "backing-root", "secret", "log", "qmp",
  ]

  /// Reads the words of all `-o` arguments, in order; a later word replaces an earlier one.
  init(parsing arguments: [String]) throws {
    for argument in arguments {
      for word in argument.split(separator: ",") {
        try apply(String(word))
      }
    }
    if allowsOther && allowsRoot {
      throw CommandFailure("allow_other and allow_root exclude each other")
    }
  }

  private mutating func apply(_ word: String) throws {
    let parts = word.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
    let name = String(parts[0])
    guard parts.count == 2 else { return try apply(flag: name) }
    try apply(value: String(parts[1]), of: name)
  }

  private mutating func apply(flag name: String) throws {
    switch name {
    case "ro": isReadOnly = true
    case "rw": isReadOnly = false
    case "allow_other": allowsOther = true
    case "allow_root": allowsRoot = true
    case "growable": isGrowable = true
    case "noresume": resumesJobs = false
    case "nolock": locksImages = false
    case "io_uring": usesRings = true
    default:
      if Self.names.contains(name) {
        throw CommandFailure("option \(name) takes a value: \(name)=...")
      }
      throw Self.unknown(name)
    }
  }

  private mutating func apply(value: String, of name: String) throws {
    switch name {
    case "uid": userID = try Self.number(value, of: name, radix: 10)
    case "gid": groupID = try Self.number(value, of: name, radix: 10)
    case "umask":
      modeMask = try Self.number(value, of: name, radix: 8)
      guard modeMask <= 0o777 else { throw Self.wrong(value, of: name, takes: "an octal mask") }
    case "cache": cache = try Self.choice(value, of: name)
    case "discard": discard = try Self.choice(value, of: name)
    case "detect-zeroes": detectZeroes = try Self.choice(value, of: name)
    case "threads":
      let count = try Self.number(value, of: name, radix: 10)
      guard (1...256).contains(count) else {
        throw Self.wrong(value, of: name, takes: "a number from 1 to 256")
      }
      threads = Int(count)
    case "map-cache": mapCacheBytes = try Self.size(value, of: name)
    case "backing-root": backingRoot = try AbsolutePath.of(value)
    case "secret": secretPath = try AbsolutePath.of(value)
    case "log": logPath = try AbsolutePath.of(value)
    case "qmp": qmpPath = try AbsolutePath.of(value)
    default:
      if Self.names.contains(name) {
        throw CommandFailure("option \(name) takes no value")
      }
      throw Self.unknown(name)
    }
  }

  private static func unknown(_ name: String) -> CommandFailure {
    CommandFailure("unknown option '\(name)' (known: \(names.joined(separator: ", ")))")
  }

  private static func wrong(_ value: String, of name: String, takes: String) -> CommandFailure {
    CommandFailure("option \(name) takes \(takes), not '\(value)'")
  }

  private static func number(_ value: String, of name: String, radix: Int) throws -> UInt32 {
    let isPlain = value.utf8.allSatisfy { (UInt8(ascii: "0")...UInt8(ascii: "9")).contains($0) }
    guard isPlain, let number = UInt32(value, radix: radix) else {
      throw wrong(value, of: name, takes: radix == 8 ? "an octal number" : "a number")
    }
    return number
  }

  private static func size(_ value: String, of name: String) throws -> UInt64 {
    guard let size = SizeArgument(argument: value) else {
      throw wrong(value, of: name, takes: "a size in bytes (K, M, G, T for powers of 1024)")
    }
    return size.bytes
  }

  private static func choice<Choice>(_ value: String, of name: String) throws -> Choice
  where Choice: RawRepresentable<String> & CaseIterable {
    guard let choice = Choice(rawValue: value) else {
      let words = Choice.allCases.map(\.rawValue).joined(separator: ", ")
      throw wrong(value, of: name, takes: "one of \(words)")
    }
    return choice
  }
}
